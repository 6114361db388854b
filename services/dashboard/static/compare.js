// A comparison: the same questions to the base, an adapter, its versions and exports, side by side, each with what answered.
import { confirmed } from "./dom.js";
import { call } from "./api.js";
import { difference } from "./words.js";

const $ = (id) => document.getElementById(id);
const form = $("ask");
const offered = new Map([...$("offered")?.querySelectorAll("button") ?? []].map((b) => [b.dataset.text, b.dataset]));
const AT_ONCE = 3; // requests: the servers batch, and a browser keeps few connections to one host
const LOADING = 90; // seconds that the GGUF server may take to load another file
const DATA = "in the data"; // no model can have a space in its name
let cells = [];
let running = null; // the AbortController of the comparison in hand

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "role") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---- what is asked: kept in the address after the #, so that a reload and a link have it

const boxes = () => [...$("boxes").querySelectorAll("textarea")];
const prompts = () => boxes().map((box) => box.value.trim()).filter(Boolean);
const chosen = () => [...form.querySelectorAll("input[name=m]:checked")];
const settings = () => Object.fromEntries(["effort", "most", "temperature", "seed"].map((name) => [name, form.elements[name].value]));

function box(text = "") {
  const number = boxes().length + 1;
  const area = make("textarea", { rows: 1, value: text, placeholder: "Ask something", "aria-label": `Question ${number}` });
  const row = make("div", { className: "box" }, area, make("button", {
    type: "button", className: "plain", textContent: "Remove", "aria-label": `Remove question ${number}`,
    onclick: () => { row.remove(); if (!boxes().length) box(); keep(); },
  }));
  $("boxes").append(row);
  return area;
}

function keep() {
  const values = new URLSearchParams(settings());
  for (const text of prompts()) values.append("q", text);
  for (const input of chosen()) values.append("m", input.value);
  history.replaceState(null, "", `#${values}`);
  for (const button of $("offered")?.querySelectorAll("button") ?? []) button.disabled = prompts().includes(button.dataset.text);
}

function restore() {
  const values = new URLSearchParams(location.hash.slice(1));
  const asked = values.getAll("q");
  for (const text of asked.length ? asked : [...offered.keys()].slice(0, 3)) box(text);
  if (!boxes().length) box();
  if (values.has("m")) for (const input of form.querySelectorAll("input[name=m]")) input.checked = values.getAll("m").includes(input.value);
  for (const name of Object.keys(settings())) if (values.has(name)) form.elements[name].value = values.get(name);
  keep();
}

// ---- one answer

class Cell {
  constructor(prompt, input) {
    Object.assign(this, { prompt, model: input.value, kind: input.dataset.kind, card: input.dataset.sha256 });
    this.thinking = make("div", { className: "thought" });
    this.fold = make("details", { hidden: true }, make("summary", { textContent: "Thinking" }), this.thinking);
    this.answer = make("div", { className: "said" });
    this.note = make("div", { className: "row small" });
    this.foot = make("div", { className: "foot-line small quiet" });
    this.element = make("article", { className: "cell", "aria-label": `${this.model} on “${prompt}”` },
      make("header", {}, make("strong", { textContent: this.kind === "base" ? "Base" : this.model }), this.tags = make("span")),
      this.fold, this.answer, this.note, this.foot);
    this.clear();
  }

  clear() {
    Object.assign(this, { text: "", thought: "", sha: "", who: "", speed: null, cut: false, state: "waiting", error: "" });
    this.draw();
  }

  draw() {
    this.fold.hidden = !this.thought;
    this.thinking.textContent = this.thought;
    this.answer.textContent = this.text || { waiting: "Waiting…", running: "…", done: "(an empty answer)", stopped: "Stopped." }[this.state] || "";
    this.answer.classList.toggle("quiet", !this.text);
    this.foot.replaceChildren();
    if (this.sha) this.foot.append(make("span", { textContent: this.who }), make("code", { textContent: this.sha.slice(0, 12), title: this.sha }));
    if (this.speed) this.foot.append(make("span", { className: "n", textContent: `${this.speed.toFixed(1)} tokens/s` }));
    if (this.cut) this.foot.append(make("span", { textContent: "cut at the most tokens" }));
  }

  async ask(signal) {
    this.clear();
    this.note.replaceChildren();
    this.state = "running";
    this.draw();
    try {
      await this.stream(signal);
      this.state = "done";
    } catch (error) {
      this.state = error.name === "AbortError" ? "stopped" : "failed";
      this.error = error.name === "TypeError" ? "The inference server does not answer. The foot of the menu says what is down." : error.message;
      this.code = error.code;
      if (!this.text) this.sha = ""; // the hash came before the error: nothing answered by it
      if (this.state === "failed") this.fail();
    }
    this.draw();
  }

  async stream(signal) {
    const system = offered.get(this.prompt)?.system;
    const { effort, most, temperature, seed } = settings();
    const body = {
      model: this.model, stream: true, stream_options: { include_usage: true }, reasoning_effort: effort,
      max_tokens: Number(most), temperature: Number(temperature), seed: Number(seed), fallback: false,
      messages: [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: this.prompt }],
    };
    const began = performance.now();
    const answer = await fetch("/v1/chat/completions", {
      method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    if (!answer.ok) throw refused((await answer.json().catch(() => null))?.error, answer.status);
    this.who = answer.headers.get("X-Tandem-Model") ?? "";
    this.sha = answer.headers.get("X-Tandem-SHA256") ?? "";
    for await (const chunk of events(answer.body)) {
      if (chunk.error) throw refused(chunk.error, 503);
      const { delta = {}, finish_reason: reason } = chunk.choices?.[0] ?? {};
      this.thought += delta.reasoning_content ?? "";
      this.text += delta.content ?? "";
      if (reason === "length") this.cut = true;
      this.speed = chunk.timings?.predicted_per_second ?? this.speed;
      if (chunk.usage) this.speed ??= (1000 * chunk.usage.completion_tokens) / (performance.now() - began);
      this.draw();
    }
  }

  fail() {
    this.note.replaceChildren(make("span", { className: "bad", role: "alert", textContent: this.error }));
    this.note.append(make("button", { type: "button", textContent: "Try again", onclick: () => again(this) }));
    if (this.kind === "export" && this.code === "backend_unavailable") {
      this.note.append(make("button", { type: "button", textContent: `Point ${form.dataset.alias} at it`, onclick: () => serve(this) }));
    }
  }
}

function refused(error, status) {
  return Object.assign(new Error(error?.message ?? `The server answered ${status}.`), { code: error?.code });
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}

// ---- the whole comparison

async function compare() {
  const asked = [...new Set(prompts())], models = chosen();
  if (!asked.length) return boxes()[0].focus(), say("Ask at least one question.", true);
  if (!models.length) return say("Choose at least one that answers.", true);
  keep();
  cells = [];
  $("results").replaceChildren(...asked.map((prompt) => question(prompt, models)));
  const kept = $("differ").value, names = models.map((input) => [input.value, input.dataset.kind === "base" ? "the base" : input.value]);
  if (asked.some((prompt) => offered.get(prompt)?.expected)) names.push([DATA, "the data"]);
  $("differ").replaceChildren(new Option("nothing", ""), ...names.map(([value, text]) => new Option(text, value, false, value === kept)));
  $("tools").hidden = false;
  await answered(cells);
}

function question(prompt, models) {
  const made = models.map((input) => new Cell(prompt, input));
  cells.push(...made);
  const { system, expected } = offered.get(prompt) ?? {};
  const columns = make("div", { className: "cells", tabIndex: 0, role: "group", "aria-label": `Answers to “${prompt}”` }, ...made.map((cell) => cell.element));
  if (expected) {
    columns.append(make("article", { className: "cell expected" }, make("header", {}, make("strong", { textContent: "In the data" })), make("div", { className: "said", textContent: expected }), make("div", { className: "foot-line small quiet", textContent: "held out of training" })));
  }
  const head = make("h3", { textContent: prompt });
  return make("section", { className: "asked" }, head, ...(system ? [make("p", { className: "quiet small", textContent: `With the instruction: ${system}` })] : []), columns);
}

async function answered(list) {
  running = new AbortController();
  busy(true);
  const waiting = [...list];
  const work = async () => {
    for (let cell; !running.signal.aborted && (cell = waiting.shift());) {
      await cell.ask(running.signal);
      judge();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  for (const cell of waiting) Object.assign(cell, { state: "stopped" }).draw();
  busy(false);
  judge();
}

async function again(cell) {
  if (!running) await answered([cell]);
}

// Point the alias that the GGUF server follows at this export, then ask until that is loaded.
async function serve(cell) {
  const { alias, served } = form.dataset;
  const question = `Point ${alias} at ${cell.model}? ${served ? `It is ${served} now. ` : ""}Whoever asks for ${alias}, or uses the GGUF server, gets ${cell.model} from the next request on. You can undo it.`;
  if (running || !(await confirmed(question, `Point ${alias}`))) return;
  try {
    await call("PUT", `/api/aliases/${alias}`, { target: cell.model });
  } catch (error) {
    return say(error.message, true);
  }
  form.dataset.served = cell.model;
  $("moved").hidden = false;
  $("moved-text").textContent = `${alias} points at ${cell.model} now${served ? `, in place of ${served}` : ""}.`;
  const began = Date.now();
  while (Date.now() - began < LOADING * 1000 && cells.includes(cell)) {
    cell.note.replaceChildren(make("span", { role: "status", textContent: "The GGUF server is loading the file…" }));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    if (running) return; // something else is asked meanwhile
    await answered([cell]);
    if (cell.state !== "failed" || cell.code !== "backend_unavailable") {
      return answered(cells.filter((other) => other.model === cell.model && other.state === "failed"));
    }
  }
}

function busy(on) {
  if (!on) running = null;
  $("go").hidden = on;
  $("stop").hidden = !on;
}

// What the answers and the hashes say of each other; asked again whenever one has come.
function judge() {
  const base = cells.find((cell) => cell.kind === "base" && cell.sha)?.sha;
  for (const cell of cells) {
    const beside = cells.filter((other) => other.prompt === cell.prompt);
    const first = beside.find((other) => other.kind === "base") ?? beside[0];
    const tags = [];
    if (cell.sha && cell.kind !== "base" && cell.sha === base) tags.push(["wrong", `Wrong: the base answered, not ${cell.model}`]);
    else if (cell.sha && cell.card && cell.sha !== cell.card) tags.push(["wrong", `Wrong: not the weights that ${cell.model} has`]);
    const same = cell !== first && cell.state === "done" && first.state === "done" && cell.text === first.text && cell.thought === first.thought;
    if (same) tags.push(["tag", first.kind === "base" ? "same as base" : `same as ${first.model}`]);
    const expected = offered.get(cell.prompt)?.expected;
    if (expected && cell.state === "done" && cell.text.trim() === expected.trim()) tags.push(["tag good", "as in the data"]);
    cell.tags.replaceChildren(...tags.flatMap(([className, textContent]) => [make("span", { className, textContent }), " "]));
    cell.draw();
    const other = $("differ").value === DATA ? offered.get(cell.prompt)?.expected : beside.find((one) => one !== cell && one.model === $("differ").value)?.text;
    if (other && cell.text) {
      cell.answer.replaceChildren(...difference(other, cell.text).map(([kind, text]) => (kind ? make(kind, { textContent: text }) : text)));
    }
  }
  const done = cells.filter((cell) => cell.state === "done").length, failed = cells.filter((cell) => cell.state === "failed").length;
  const wrong = cells.some((cell) => cell.tags.querySelector(".wrong"));
  say(`${done} of ${cells.length} answered${failed ? `, ${failed} failed` : ""}.${wrong ? " A column is wrong: see the red marks." : ""}`, failed > 0 || wrong);
}

function say(text, bad = false) {
  Object.assign($("told"), { value: text, className: bad ? "bad" : "" });
}

function markdown() {
  const { effort, most, temperature, seed } = settings();
  const lines = [`# ${form.dataset.adapter}, compared`, "", `Effort ${effort}, temperature ${temperature}, seed ${seed}, at most ${most} tokens.`];
  for (const prompt of new Set(cells.map((cell) => cell.prompt))) {
    lines.push("", `## ${prompt}`);
    for (const cell of cells.filter((other) => other.prompt === prompt)) {
      const marks = [...cell.tags.children].map((tag) => ` **${tag.textContent}**`).join("");
      lines.push("", `**${cell.model}**, \`${cell.sha || "no hash"}\`${cell.speed ? `, ${cell.speed.toFixed(1)} tokens/s` : ""}${marks}`, "");
      lines.push(...(cell.text || cell.error || "(no answer)").split("\n").map((line) => `> ${line}`));
    }
    if (offered.get(prompt)?.expected) lines.push("", "**In the data**", "", ...offered.get(prompt).expected.split("\n").map((line) => `> ${line}`));
  }
  return `${lines.join("\n")}\n`;
}

form.addEventListener("submit", (event) => { event.preventDefault(); if (!running) compare(); });
form.addEventListener("input", keep);
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
$("add").addEventListener("click", () => box().focus());
$("offered")?.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const empty = boxes().find((area) => !area.value.trim());
  if (empty) empty.value = button.dataset.text;
  else box(button.dataset.text);
  keep();
});
$("stop").addEventListener("click", () => running?.abort());
$("differ").addEventListener("change", judge);
$("markdown").addEventListener("click", () => $("markdown").setAttribute("data-copy", markdown())); // app.js copies it next
restore();
