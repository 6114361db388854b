// A conversation worth learning becomes a row of a data set: what is kept is shown before it is.
import { call } from "../api.js";
import { row } from "./conversation.js";
import { el } from "../dom.js";
import { remember, remembered } from "./memory.js";

const $ = (id) => document.getElementById(id);
let line = [];
let system = "";

export function start() {
  $("keep-form").addEventListener("submit", keep);
  $("keep-thinking").addEventListener("change", preview);
}

// Offer to keep `messages`, the line from the start to an answer.
export async function offer(messages, systemPrompt) {
  line = messages;
  system = systemPrompt;
  $("keep-thinking").checked = true;
  $("keep-thinking").closest("label").hidden = !line.some(({ thinking }) => thinking);
  $("keep-name").value = remembered().kept ?? "kept";
  $("keep-said").replaceChildren();
  preview();
  $("keep").showModal();
  const known = await call("GET", "/api/datasets?limit=1000").catch(() => ({ items: [] }));
  $("keep-names").replaceChildren(...[...new Set(known.items.map(({ name }) => name))].map((value) => el("option", { value })));
}

function preview() {
  const messages = row(line, system, $("keep-thinking").checked);
  $("keep-save").disabled = !messages;
  $("keep-shown").replaceChildren(...(messages ?? []).map(({ role, content, thinking }) => el("div", {},
    el("dt", {}, role),
    thinking ? el("dd.quiet", {}, thinking) : null,
    el("dd", {}, content))));
  if (!messages) $("keep-shown").append(el("p.bad", {}, "There is no answer to keep yet. Ask something first."));
}

async function keep(event) {
  event.preventDefault();
  const name = $("keep-name").value.trim();
  const effort = line.findLast(({ role }) => role === "assistant")?.effort;
  const body = { messages: row(line, system, $("keep-thinking").checked), ...(effort && { reasoning_effort: effort }) };
  $("keep-save").disabled = true;
  try {
    const before = await call("GET", `/api/datasets/${encodeURIComponent(name)}`).catch(() => null);
    const card = await call("POST", `/api/datasets/${encodeURIComponent(name)}/rows`, body);
    const link = el("a", { href: `/datasets/${card.reference}` }, card.reference);
    const rows = `${card.rows.accepted} ${card.rows.accepted === 1 ? "row" : "rows"}`;
    $("keep-said").className = "good";
    $("keep-said").replaceChildren(...(before?.reference === card.reference
      ? [link, ` has this very row already, among ${rows}.`]
      : ["Kept. ", link, ` has ${rows} now.`]));
    remember({ kept: name });
  } catch (error) {
    $("keep-said").className = "bad";
    $("keep-said").textContent = error.message;
  } finally {
    $("keep-save").disabled = false;
  }
}
