// What every page has: forms and buttons that call the API, parts that keep themselves fresh, times in the reader's zone.
import { call, values } from "./api.js";
import { confirmed, copy, tell } from "./dom.js";

// Not `element.dataset`: a form's field named "dataset" would stand in its place.
const data = (element, name) => element.getAttribute(`data-${name}`);

// ---- forms and buttons: data-api="POST /api/runs", data-body='{…}', data-go="/runs/{id}", data-confirm="…?"

function say(element, text, bad = false) {
  const output = (element.closest("form, dialog, .row, .head, td") ?? document).querySelector("output");
  if (output) Object.assign(output, { value: text, className: bad ? "bad" : "" });
  else if (bad) tell(text);
}

async function act(element, body) {
  const [method, url] = data(element, "api").split(" ");
  const button = element.matches("button") ? element : element.querySelector("button:not([type=button])");
  if (data(element, "confirm") && !(await confirmed(data(element, "confirm"), button.textContent.trim()))) return;
  button.disabled = true;
  say(element, "");
  try {
    const value = await call(method, url, body);
    element.dispatchEvent(new CustomEvent("done", { bubbles: true, detail: value }));
    if (data(element, "go")) location.href = data(element, "go").replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(value[name]).replaceAll("%40", "@"));
    else if (data(element, "say")) say(element, data(element, "say"));
    if (!data(element, "go")) refresh(); // what is left may be of something that is gone
  } catch (error) {
    say(element, error.message, true);
  } finally {
    button.disabled = false;
    if (document.activeElement === document.body && button.isConnected) button.focus(); // a button loses it when disabled
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!data(form, "api")) return;
  event.preventDefault();
  act(form, values(form));
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (data(button, "api")) act(button, data(button, "body") ? JSON.parse(data(button, "body")) : undefined);
  else if (button.hasAttribute("data-copy")) copied(button);
  else if (data(button, "dialog")) document.getElementById(data(button, "dialog")).showModal();
  else if (button.hasAttribute("data-close")) button.closest("dialog").close();
  else if (button.hasAttribute("data-menu")) {
    button.setAttribute("aria-expanded", button.closest("nav").classList.toggle("open"));
  }
});

// data-copy="text", or empty for the text of the nearest <pre>.
const copied = (button) =>
  copy(data(button, "copy") || button.closest(".copies").querySelector("pre, code").textContent, button);

// ---- parts that keep themselves fresh: hx-trigger="fast from:body" or "slow from:body"; nothing is asked for while hidden

export const refresh = () => window.htmx?.trigger(document.body, "refresh");
const every = (seconds, name) => setInterval(() => document.hidden || window.htmx?.trigger(document.body, name), seconds * 1000);
// What a person has unfolded stays so when a part around it is renewed.
if (window.Idiomorph) window.Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.matches("details, dialog"));
every(2, "fast");
every(10, "slow");
document.addEventListener("visibilitychange", () => document.hidden || refresh());

// ---- a lost connection is said, with since when, and the page goes on trying

const bar = document.getElementById("stale");
let since = null;
export function stale(reason) {
  since ??= new Date();
  const text = `${reason} What you see is as of ${since.toLocaleTimeString()}; trying again.`;
  if (bar.hidden || bar.textContent !== text) Object.assign(bar, { hidden: false, textContent: text });
}
export function fresh() {
  since = null;
  bar.hidden = true;
}
const AWAY = "Tandem does not answer.";
document.body.addEventListener("htmx:sendError", () => stale(AWAY));
document.body.addEventListener("htmx:responseError", (event) => {
  const status = event.detail.xhr.status;
  stale(status === 401 ? "You have been signed out: open a sign-in link in another tab." : status >= 500 ? AWAY : `Tandem answered ${status}.`);
});
document.body.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.xhr.status < 400) fresh(); });
addEventListener("offline", () => stale("This device is offline."));
addEventListener("online", () => refresh());

// ---- times: relative on the page, the moment itself in the reader's zone on hover

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];
function ago(moment) {
  const seconds = Math.max(0, (Date.now() - moment) / 1000);
  for (const [size, unit] of UNITS) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  return seconds < 10 ? "just now" : `${Math.floor(seconds)} s ago`;
}
export function times(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.getAttribute("datetime"));
    if (Number.isNaN(+moment)) continue;
    const exact = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    if (element.title !== exact) element.title = exact;
    const text = element.hasAttribute("data-exact") ? exact : ago(moment);
    if (element.textContent !== text) element.textContent = text;
  }
}
times();
setInterval(times, 10_000);
document.body.addEventListener("htmx:afterSettle", () => times());

// ---- keys: "/" goes to the search field

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select, [contenteditable]")) return;
  const search = document.querySelector("main input[type=search]");
  if (search) { event.preventDefault(); search.focus(); }
});
