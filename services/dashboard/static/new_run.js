// The form of a new run: what differs from the recipe, what it will take, and what is wrong with it before it is sent.
import { bytes, call, span } from "./api.js";
import { checked, command, same, written, yaml } from "./recipe.js";

const WAIT = 350; // milliseconds after the last key
const get = (id) => document.getElementById(id);
const form = get("new-run");
const read = (name) => JSON.parse(form.getAttribute(`data-${name}`) ?? "null");
const recipes = Object.fromEntries(read("recipes").map((recipe) => [recipe.name, recipe.values]));
const fields = read("fields"), versions = read("versions"), parent = read("parent");
const controls = [...form.querySelectorAll("[data-value]")];
const PARTS = { weights: "Base model", adapter: "Adapter", optimizer: "Optimizer", activations: "Activations", logits: "Logits", runtime: "Runtime" };
let recipe = form.elements.recipe.value, estimated = null, refused = null, asking = null, timer = 0;

function value(control) {
  if (control.dataset.type === "boolean") return control.checked;
  if (control.dataset.type === "array") return [...control.querySelectorAll(":checked")].map((box) => box.value);
  const text = control.value.trim();
  if (control.dataset.type === "string") return text === "" ? null : text;
  return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
}

function put(control, given) {
  if (control.dataset.type === "boolean") control.checked = given;
  else if (control.dataset.type === "array") for (const box of control.querySelectorAll("input")) box.checked = given.includes(box.value);
  else control.value = given ?? "";
}

const used = (name, method) => (get(`l-${name}`).closest(".field").dataset.usedBy ?? method).split(" ").includes(method);
const values = () => Object.fromEntries(controls.map((control) => [control.dataset.value, value(control)]));
const changes = () => Object.fromEntries(Object.entries(values()).filter(([name, given]) => !same(given, recipes[recipe][name])));
const label = (name) => get(`l-${name}`).firstChild.textContent.trim();
const wanted = () => ({ kind: "train", dataset: get("dataset").value, recipe, name: get("name").value.trim() || get("dataset").selectedOptions[0].dataset.name, overrides: changes() });

// ---- what is wrong, next to the field that it is about

function wrong(name, message) {
  const place = get(`bad-${name}`);
  const control = get(`v-${name}`) ?? get(name);
  place.textContent = message;
  place.hidden = !message;
  control.closest(".field").classList.toggle("wrong", Boolean(message));
  message ? control.setAttribute("aria-invalid", "true") : control.removeAttribute("aria-invalid");
  control.setAttribute("aria-describedby", `${fields[name] ? `about-${name}` : name === "name" ? "becomes" : ""} ${message ? `bad-${name}` : ""}`.trim());
}

function refuse(found) {
  refused = found;
  for (const name of [...Object.keys(fields), "dataset", "name"]) wrong(name, found?.[name] ?? "");
  const named = Object.keys(found ?? {}).filter((name) => name);
  const box = get("refusal");
  box.replaceChildren(...(found?.[""] ? [found[""]] : []));
  if (named.length) box.append("Not possible yet: see ", ...named.flatMap((name, i) => [i ? ", " : "", link(`#${fields[name] ? `v-${name}` : name}`, fields[name] ? label(name) : name === "name" ? "the name" : "the data set")]), ".");
  box.hidden = !found;
  if (found) estimate(null);
  button();
}

// A sentence of the API goes to the field that it names; one that is changed before one that is not.
function placed(message) {
  const named = Object.keys(fields).filter((name) => get(`l-${name}`)?.closest(".field:not([hidden])") && new RegExp(`\\b${name}\\b`).test(message));
  named.sort((a, b) => message.search(new RegExp(`\\b${a}\\b`)) - message.search(new RegExp(`\\b${b}\\b`)));
  const changed = changes();
  const name = named.find((one) => one in changed) ?? named[0];
  return { [name ?? (/data set/.test(message) ? "dataset" : /cannot be an? adapter/.test(message) ? "name" : "")]: message };
}

function check() {
  const found = {};
  for (const control of controls) {
    const message = checked(fields[control.dataset.value], value(control));
    if (message) found[control.dataset.value] = message;
  }
  return Object.keys(found).length ? found : null;
}

// ---- what it will take

async function ask() {
  asking?.abort();
  const own = (asking = new AbortController());
  try {
    estimate(await call("POST", "/api/runs/estimate", wanted(), { signal: own.signal }));
    refuse(null);
  } catch (error) {
    if (error.name === "AbortError" || own.signal.aborted) return;
    if (error.status >= 400 && error.status < 500 && error.status !== 401) refuse(placed(error.message));
    else { estimate(null, error.message); refuse(null); }
  }
}

function estimate(found, message = "") {
  estimated = found;
  const box = get("estimate");
  if (!found) {
    box.replaceChildren(node("p", message || "What it takes is shown when every value is possible.", "quiet"));
    return button();
  }
  const time = found.seconds == null ? "not known" : `about ${span(found.seconds)}`;
  const facts = node("dl");
  const n = (number) => number.toLocaleString("en");
  for (const [name, text] of [["Steps", n(found.steps)], ["Time", time], ["Examples", n(found.examples)], ["Passes over them", found.epochs.toLocaleString("en", { maximumFractionDigits: 1 })], ["Tokens a step", n(Math.round(found.tokens_per_step))]]) facts.append(node("dt", name), node("dd", text));
  const from = node("p", "", "quiet small");
  const [before, id, after] = found.seconds_from.split(/(train-[\w-]+)/);
  from.append(`Time: ${before}`, ...(id ? [link(`/runs/${id}`, "an earlier run"), after] : []), ".");
  box.replaceChildren(node("h2", "What it will take"), facts, from, ...memory(found), ...found.notes.map((text) => node("p", text, "small")), ...(found.nearest ? [nearer(found.nearest)] : []));
  button();
}

function memory({ memory: parts, memory_available: available }) {
  if (!parts) return [];
  const all = Math.max(parts.total, available ?? 0), short = available && parts.total > available;
  const picture = svg("svg", { class: "memory", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": `${bytes(parts.total)}${available ? ` of ${bytes(available)}` : ""}` });
  picture.append(svg("rect", { class: "free", width: 100, height: 10 }));
  const list = node("dl", "", "small");
  let x = 0;
  Object.entries(PARTS).forEach(([key, name], i) => {
    if (!parts[key]) return;
    const width = (100 * parts[key]) / all;
    picture.append(svg("rect", { class: `series-${i}`, x, width, height: 10 }));
    x += width;
    const head = node("dt");
    head.append(node("i", "", `swatch series-${i}`), name);
    list.append(head, node("dd", bytes(parts[key])));
  });
  if (short) picture.append(svg("rect", { class: "limit", x: (100 * available) / all - 0.5, width: 1, height: 10 }));
  const sum = node("p", `${bytes(parts.total)}${available ? ` of ${bytes(available)}` : ""}${short ? ": more than there is" : ""}`, short ? "bad" : "");
  return [node("h3", "Memory at its highest, about"), picture, sum, list];
}

// The least change with which it fits, as one click.
function nearer(values) {
  const take = Object.assign(node("button", "Use these values", "main"), { type: "button", id: "nearest" });
  take.addEventListener("click", () => {
    for (const [name, given] of Object.entries(values)) put(get(`v-${name}`), given);
    changedNow();
    get("send").focus();
  });
  return take;
}

function button() {
  const send = get("send"), { name } = wanted();
  send.setAttribute("aria-disabled", Boolean(refused));
  send.classList.toggle("main", !estimated?.nearest); // what fits is at hand
  send.textContent = refused ? "Cannot start yet" : `Train ${name}@v${versions[name] ?? 1}${estimated ? ` · ${estimated.steps.toLocaleString("en")} ${estimated.steps === 1 ? "step" : "steps"}${estimated.seconds == null ? "" : `, about ${span(estimated.seconds)}`}` : ""}`;
}

// ---- the whole form after a change

function show() {
  const changed = changes(), { dataset, name } = wanted(), { method } = get("dataset").selectedOptions[0].dataset;
  for (const radio of form.elements.recipe) radio.closest("label").hidden = !radio.checked && recipes[radio.value].method !== method;
  for (const control of controls) {
    const own = control.dataset.value in changed, field = control.closest(".field");
    field.classList.toggle("changed", own);
    field.hidden = !own && !used(control.dataset.value, recipes[recipe].method);
    const reset = form.querySelector(`[data-reset="${control.dataset.value}"]`);
    reset.hidden = !own;
    reset.textContent = `Reset to ${written(recipes[recipe][control.dataset.value])}`;
  }
  for (const more of form.querySelectorAll("[data-more]")) more.textContent = named(more);
  for (const group of form.querySelectorAll(".values-of")) {
    const count = group.querySelectorAll(".changed").length;
    group.querySelector("[data-changes]").textContent = count ? `${count} changed` : "";
  }
  get("becomes").textContent = `It becomes ${name}@v${versions[name] ?? 1}.`;
  get("look").href = `/datasets/${dataset}`;
  get("command").textContent = command(wanted(), name !== dataset.split("@")[0]);
  const resolved = { ...recipes[recipe], ...changed };
  get("resolved").textContent = form.elements.form.value === "yaml" ? yaml(resolved) : JSON.stringify(resolved, null, 2);
  const names = Object.keys(changed);
  get("changes").replaceChildren(...(names.length ? [node("h3", `Different from ${recipe}`), list(names.map((one) => `${label(one)}: ${written(changed[one])}`))] : []));
  button();
}

// What a fold holds, in the words of its labels.
function named(more) {
  const labels = [...more.parentElement.querySelectorAll(".field:not([hidden])")].map((field) => label(field.dataset.field));
  const text = labels.map((one) => one.replace(/^[A-Z](?=[a-z]+\b)/, (letter) => letter.toLowerCase())).join(", ");
  return more.dataset.more ? more.dataset.more + text : text.replace(/^./, (letter) => letter.toUpperCase());
}

function changedNow() {
  show();
  clearTimeout(timer);
  asking?.abort();
  const found = check();
  if (found) return refuse(found);
  if (refused) for (const name of Object.keys(refused)) if (name && (get(`v-${name}`) ?? get(name)) === document.activeElement) wrong(name, "");
  timer = setTimeout(ask, WAIT);
}

function choose(next) {
  const kept = Object.fromEntries(Object.entries(changes()).filter(([name]) => used(name, recipes[next].method)));
  recipe = next;
  for (const control of controls) put(control, { ...recipes[recipe], ...kept }[control.dataset.value]);
}

// A data set of another kind takes another method, and with it another recipe.
function fit() {
  const { method, recipe: fitting } = get("dataset").selectedOptions[0].dataset;
  if (values().method === method) return;
  form.elements.recipe.value = fitting;
  choose(fitting);
}

form.addEventListener("input", (event) => {
  if (event.target.name === "recipe") choose(event.target.value);
  if (event.target.name === "form") return show();
  if (event.target.id === "dataset") fit();
  if (event.target.id === "dataset" && !edited) get("name").value = event.target.selectedOptions[0].dataset.name;
  if (event.target.id === "name") edited = true;
  const query = new URLSearchParams(location.search);
  query.set("dataset", get("dataset").value);
  query.set("recipe", recipe);
  history.replaceState(null, "", `?${query}`);
  changedNow();
});
form.addEventListener("click", (event) => {
  const { reset } = event.target.dataset;
  if (event.target.matches("#refusal a")) { event.preventDefault(); point(event.target.hash.slice(1)); }
  if (!reset) return;
  const control = get(`v-${reset}`);
  put(control, recipes[recipe][reset]);
  changedNow();
  (control.matches("input, select") ? control : control.querySelector("input")).focus();
});

function point(id) {
  const control = get(id);
  for (let around = control.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  control.focus();
}

// ---- sending

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const found = check() ?? refused;
  if (found) {
    refuse(found);
    const [name] = Object.keys(found);
    return name ? point(fields[name] ? `v-${name}` : name) : undefined;
  }
  const said = get("sent"), send = get("send");
  send.disabled = true;
  said.className = "";
  said.textContent = "Sending …";
  try {
    const run = await call("POST", ...request());
    location.href = `/runs/${run.id}`;
  } catch (error) {
    send.disabled = false;
    said.className = "bad";
    said.textContent = `${error.message} `;
    if (error.status === 503 && error.details[0]) { said.append(link(`/runs/${error.details[0]}`, "Look at the run")); send.disabled = true; }
    else if (error.status === 400 || error.status === 404 || error.status === 422) { said.textContent = ""; refuse(placed(error.message)); }
  }
});

// A run of the same job is a clone, so that it names its parent; what it no longer overrides gets the recipe's own value.
function request() {
  const body = wanted();
  if (!parent || ["dataset", "recipe", "name"].some((name) => parent.job[name] !== body[name])) return ["/api/runs", body];
  const back = Object.keys(parent.job.overrides).filter((name) => !(name in body.overrides));
  return [`/api/runs/${parent.id}/clone`, { overrides: { ...body.overrides, ...Object.fromEntries(back.map((name) => [name, recipes[recipe][name]])) } }];
}

function node(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}
function link(href, text) {
  return Object.assign(node("a", text), { href });
}
function list(texts) {
  const all = node("ul", "", "small");
  all.append(...texts.map((text) => node("li", text)));
  return all;
}
function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, given] of Object.entries(attributes)) made.setAttribute(key, given);
  return made;
}

let edited = get("name").value !== get("dataset").selectedOptions[0].dataset.name;
for (const control of controls) put(control, { ...recipes[recipe], ...read("overrides") }[control.dataset.value]);
show();
ask();
