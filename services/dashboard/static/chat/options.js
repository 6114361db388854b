// What an answer is asked with: the models that are served, the effort, and how the next token is drawn.
import { el } from "../dom.js";
import { remember, remembered } from "./memory.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const KINDS = { alias: "Aliases", adapter: "Adapters", export: "Exports (GGUF)", base: "Base model" };
let served = [];
let retry = null;

export const names = () => served.map(({ id }) => id);

// The models from the server; `told(sentence)` when there are none, with null when there are.
export async function load(told) {
  clearTimeout(retry);
  const answer = await fetch("/v1/models").catch(() => null);
  const list = answer?.ok ? (await answer.json().catch(() => null))?.data : null;
  if (!list?.length) {
    retry = setTimeout(() => load(told), 4000);
    if (answer?.status === 401) return told("You have been signed out: open a sign-in link in another tab.");
    return told("No model is served: the inference service does not answer. It may be starting; the system page shows its state.");
  }
  served = list;
  return told(null);
}

// The model for a new chat: the one used last, else what production points at, else what was trained last.
export function usual() {
  const before = remembered().models?.[0];
  const order = [before, "production", ...served.filter(({ kind }) => kind === "adapter").map(({ id }) => id), ...names()];
  return order.find((name) => names().includes(name)) ?? "";
}

// The one to compare with: the base, or beside the base itself the usual one.
export function other(model) {
  const base = served.find(({ kind }) => kind === "base")?.id;
  return base && base !== model ? base : (names().find((name) => name !== model) ?? model);
}

// Fill a select; a model that is not served any more stays in it, and is said to be gone.
export function fill(select, model) {
  const groups = Object.entries(KINDS).map(([kind, label]) => {
    const entries = served.filter((entry) => entry.kind === kind);
    const options = entries.map(({ id, root }) => el("option", { value: id }, kind === "alias" ? `${id} → ${root}` : id));
    return options.length ? el("optgroup", { label }, ...options) : null;
  });
  const lost = model && served.length && !names().includes(model);
  const gone = lost ? el("option", { value: model }, `${model} (not served)`) : null;
  const none = served.length ? null : el("option", { value: model ?? "" }, model || "no model");
  select.replaceChildren(...[gone, none, ...groups].filter(Boolean));
  select.value = model;
  select.title = model;
}

// What goes with the next question, and is kept with its answer.
export function chosen() {
  const sampling = {};
  for (const name of NUMBERS) if ($(name).value !== "" && $(name).validity.valid) sampling[name] = Number($(name).value);
  return { effort: $("effort").value, sampling };
}

export function start() {
  const known = remembered();
  $("effort").value = known.effort ?? "medium";
  for (const name of NUMBERS) $(name).value = known.sampling?.[name] ?? "";
  const keep = () => { remember(chosen()); mark(); };
  for (const name of ["effort", ...NUMBERS]) $(name).addEventListener("change", keep);
  $("usual").addEventListener("click", () => {
    for (const name of NUMBERS) $(name).value = "";
    keep();
  });
  mark();
}

// The button shows that something is not as usual.
export function mark() {
  const own = Object.keys(chosen().sampling).length + ($("system").value.trim() ? 1 : 0);
  $("options-open").textContent = own ? `Settings (${own})` : "Settings";
}
