// Forms and buttons that call the API, uploads with progress, and the parts of a page that refresh themselves.
"use strict";

async function call(method, url, body) {
  const options = { method, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(url, options).catch(() => null);
  if (!answer) throw new Error("The dashboard does not answer. Is it running?");
  const value = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(value?.error?.message ?? `The dashboard answered ${answer.status}.`);
  return value;
}

// Not `element.dataset`: a form's field named "dataset" would stand in its place.
const data = (element, name) => element.getAttribute(`data-${name}`);

function say(element, text, bad = false) {
  const output = element.closest("form, .row, .push")?.querySelector("output");
  if (output) Object.assign(output, { value: text, className: bad ? "bad" : "" });
}

async function act(element, body) {
  const [method, url] = data(element, "api").split(" ");
  const button = element.matches("button") ? element : element.querySelector("button");
  button.disabled = true;
  say(element, "");
  try {
    const value = await call(method, url, body);
    if (data(element, "go")) location.href = data(element, "go") + value.id;
    else if (element.closest("[data-ended]")) location.reload(); // an ended page has no stream to follow
    else await refresh();
  } catch (error) {
    say(element, error.message, true);
  } finally {
    button.disabled = false;
  }
}

function upload(form) {
  const file = form.elements.file.files[0];
  const bar = form.querySelector("progress");
  const request = new XMLHttpRequest(); // fetch cannot tell how much has been sent
  request.open("POST", `${data(form, "upload")}?filename=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.onprogress = (event) => {
    bar.value = event.loaded / event.total;
    say(form, event.loaded < event.total ? "sending…" : "reading rows…");
  };
  request.onloadend = () => {
    bar.hidden = true;
    const value = request.status ? JSON.parse(request.responseText || "{}") : null;
    if (request.status === 200) say(form, `This content is there already, as ${value.reference}.`);
    else if (request.status === 201) location.reload();
    else say(form, value?.error?.message ?? "The upload broke off. Try again.", true);
  };
  bar.hidden = false;
  bar.value = 0;
  request.send(file);
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other && !part.contains(document.activeElement) && part.innerHTML !== other.innerHTML) part.innerHTML = other.innerHTML;
  }
  const main = document.querySelector("main[data-refresh]");
  if (main) main.dataset.refresh = fresh.querySelector("main").dataset.refresh;
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!data(form, "api") && !data(form, "upload")) return;
  event.preventDefault();
  if (data(form, "upload")) upload(form);
  else act(form, Object.fromEntries(new FormData(form)));
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-api]");
  if (button) act(button, data(button, "api").endsWith("/clone") ? {} : undefined);
});

const live = document.querySelector("main[data-refresh]");
async function again() {
  if (!document.hidden) await refresh();
  setTimeout(again, 1000 * live.dataset.refresh);
}
if (live) setTimeout(again, 1000 * live.dataset.refresh);
