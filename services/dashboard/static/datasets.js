// The list of data sets: a file is uploaded, or a data set of the hub imported, and both are seen being read.
import { bytes, call, span } from "./api.js";

const form = document.getElementById("upload");
const told = document.getElementById("told");
const field = (name) => form.elements[name].value.trim();
const number = (n) => n.toLocaleString("en");
let busy = false;
let sending = false; // what has arrived is read whether or not the page stays

// ---- what the page says: made of nodes, as file names and rows are data

function node(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) value === false || element.setAttribute(key, value === true ? "" : value);
  element.append(...children.filter((child) => child != null));
  return element;
}

function say(kind, ...children) {
  told.ariaBusy = "false";
  told.replaceChildren(node("div", { class: `note ${kind}`, role: kind === "bad" ? "alert" : "status" }, ...children));
}

const link = (reference) => node("a", { href: `/datasets/${reference}` }, reference);

function refused(title, error) {
  const rows = (error.details ?? []).filter((row) => row?.line !== undefined);
  const body = rows.map((row) => node("tr", {}, node("td", { class: "n" }, number(row.line)),
    node("td", {}, row.reason.replace(/^(line|row) \d+: /, "")), node("td", {}, node("code", {}, row.text.slice(0, 300)))));
  const sentences = error.message.split("\n").filter((line) => !rows.length || !/^ +(.+ )?(line|row) \d+: /.test(line)); // they stand in the table
  const again = node("button", { type: "button" }, "Choose another file");
  again.onclick = () => form.elements.file.click();
  say("bad", node("p", {}, node("strong", {}, title)), node("p", { class: "sentence" }, sentences.join("\n")),
    rows.length ? node("details", { open: true }, node("summary", {}, `The first rejected rows (${rows.length})`),
      node("div", { class: "scroll", tabindex: "0" }, node("table", {}, node("thead", {}, node("tr", {}, node("th", { class: "n" }, "Line"), node("th", {}, "Why"), node("th", {}, "Row"))), node("tbody", {}, ...body)))) : null,
    node("p", {}, again));
  again.focus();
}

// ---- progress: bytes sent, then rows read

function progress(name) {
  const bar = node("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const step = node("span", { class: "n" });
  const stop = node("button", { type: "button" }, "Cancel");
  const hint = node("p", { class: "quiet", hidden: true }, "You may leave this page: what comes of it will be in the list.");
  say("", node("p", {}, node("strong", {}, name)), node("p", { class: "row" }, bar, step, stop), hint);
  told.ariaBusy = "true"; // the figures change all the time: not to be read out
  stop.focus();
  return { stop, arrived() { stop.hidden = true; hint.hidden = false; }, show(share, text) { bar.value = share; step.textContent = text; } };
}

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

async function look(id, view) {
  const state = await call("GET", `/api/datasets/uploads/${id}`).catch(() => null);
  if (state?.phase === "reading") {
    const counts = `${number(state.accepted)} rows${state.rejected ? `, ${number(state.rejected)} rejected` : ""}`;
    const all = state.read >= state.total;
    view.show(state.read / (state.total || 1), all ? `Read ${counts}; writing the data set` : `Reading rows: ${bytes(state.read)} of ${bytes(state.total)} · ${counts}`);
  }
  return state;
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 400));

// Shows how far the reading is; the answer itself comes with the request that began it.
async function follow(id, view, ended) {
  for (await pause(); !ended(); await pause()) await look(id, view);
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

function send(file, id, view) {
  const query = new URLSearchParams({ filename: file.name, upload: id });
  for (const name of ["name", "licence"]) if (field(name)) query.set(name, field(name));
  const request = new XMLHttpRequest();
  sending = true;
  const began = Date.now();
  return new Promise((resolve, reject) => {
    request.upload.onprogress = ({ loaded, total }) => {
      const seconds = (Date.now() - began) / 1000;
      const left = seconds > 2 && loaded ? ` · about ${span(((total - loaded) * seconds) / loaded)} left` : "";
      view.show(loaded / total, `Sending: ${bytes(loaded)} of ${bytes(total)}${left}`);
    };
    request.upload.onload = () => {
      sending = false;
      view.arrived();
      view.show(0, "Sent. Reading rows");
      follow(id, view, () => request.readyState === 4);
    };
    request.onload = () => {
      const value = parsed(request.responseText);
      if (request.status < 300) resolve([value, request.status]);
      else reject(Object.assign(new Error(value?.error?.message ?? `Tandem answered ${request.status}.`), { details: value?.error?.details, status: request.status }));
    };
    request.onerror = () => reject(new Error(""));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    view.stop.onclick = () => request.abort();
    request.open("POST", `/api/datasets?${query}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  });
}

// The connection broke: the file may have arrived whole all the same, and then it is being read.
async function recovered(id, view) {
  let state = await look(id, view);
  while (state?.phase === "reading") {
    await pause();
    state = await look(id, view);
  }
  if (state?.phase === "done") return [{ reference: state.reference }, 201];
  throw new Error(state?.message || "The connection broke before the whole file had arrived, so nothing was kept. Try again when Tandem answers.");
}

function outOfBounds(file) {
  if (file.size > form.dataset.limit) return `It has ${bytes(file.size)}; at most ${bytes(Number(form.dataset.limit))} are taken. Split it, or raise TANDEM_UPLOAD_LIMIT_BYTES.`;
  if (file.size > form.dataset.room) return `It has ${bytes(file.size)}, and there is room for ${bytes(Number(form.dataset.room))} on Tandem's disk. Delete exports or data sets that are not needed.`;
  return form.elements.name.checkValidity() ? "" : "The name may have small letters, digits, dots and dashes, with a letter or digit at both ends.";
}

async function upload(file) {
  const problem = outOfBounds(file);
  if (problem) return refused(`${file.name} was not sent`, { message: problem });
  const id = newId();
  const view = progress(file.name);
  return watched(`${file.name} was not taken`, () => send(file, id, view).catch((error) => {
    if (error.message || error.name === "AbortError") throw error;
    return recovered(id, view);
  }));
}

// One at a time; at the end to the page of what was made, or a sentence.
async function watched(title, work, failed) {
  busy = true;
  form.inert = true;
  try {
    const [card, status] = await work();
    if (status === 201) location.href = `/datasets/${card.reference}`;
    else say("good", node("p", {}, "The same content is already here: ", link(card.reference), ", so nothing was added."));
  } catch (error) {
    if (error.name === "AbortError") say("", node("p", {}, "Cancelled; nothing was kept."));
    else if (!failed?.(error)) refused(title, error);
  } finally {
    busy = sending = false;
    form.inert = false;
    form.elements.file.value = "";
  }
}

form.elements.file.addEventListener("change", () => { if (form.elements.file.files.length) upload(form.elements.file.files[0]); });
form.addEventListener("submit", (event) => { event.preventDefault(); form.elements.file.click(); });
addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });

// ---- dropped anywhere on the page

const dropping = document.getElementById("dropping");
const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!holdsFile(event)) return;
  event.preventDefault();
  dropping.hidden = busy;
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) dropping.hidden = true; });
addEventListener("drop", (event) => {
  if (!holdsFile(event)) return;
  event.preventDefault();
  dropping.hidden = true;
  const files = event.dataTransfer.files;
  if (busy) return;
  if (files.length === 1) upload(files[0]);
  else refused("Nothing was sent", { message: "Drop one file at a time: each becomes a data set of its own." });
});

// ---- from the hub

async function fromHub() {
  const body = { upload: newId() };
  for (const name of ["repository", "split", "config", "revision", "name"]) if (field(name)) body[name] = field(name);
  if (!body.repository) return form.elements.repository.focus();
  const view = progress(body.repository);
  view.arrived();
  let ended = false;
  follow(body.upload, view, () => ended);
  await watched(`${body.repository} was not imported`, async () => {
    try {
      return [await call("POST", "/api/datasets/import", body), 201];
    } finally {
      ended = true;
    }
  }, (error) => error.status === 409 && offerFetch(body));
}

function offerFetch({ repository, revision }) {
  const button = node("button", { type: "button", class: "main" }, "Fetch it");
  button.onclick = async () => {
    button.disabled = true;
    try {
      const job = { kind: "fetch", repository, repository_type: "dataset", ...(revision && { revision }) };
      const run = await call("POST", "/api/runs", job);
      say("good", node("p", {}, "The fetch is queued: ", node("a", { href: `/runs/${run.id}` }, run.id), ". When it has succeeded, come back and press Import again."));
    } catch (error) {
      refused(`${repository} is not fetched`, error);
    }
  };
  say("", node("p", {}, node("strong", {}, `${repository} is not in the cache yet`)),
    node("p", {}, "Tandem can fetch it from the hub as a run. That needs the network; come back here when it has succeeded."), node("p", {}, button));
  return true;
}

document.getElementById("import").addEventListener("click", fromHub);
document.getElementById("hub").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input")) { event.preventDefault(); fromHub(); }
});
