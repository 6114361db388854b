// A chat against /v1: streamed, with the thinking folded, and a button to stop it.
"use strict";

const $ = (id) => document.getElementById(id);
let messages = [];
let stopping = null; // the AbortController of the answer in hand

function turn(role) {
  const element = document.createElement("div");
  element.className = `turn ${role}`;
  $("talk").append(element);
  return element;
}

function answerBox() {
  const element = turn("assistant");
  const fold = document.createElement("details");
  const summary = document.createElement("summary");
  const thinking = document.createElement("div");
  const text = document.createElement("div");
  summary.textContent = "Thinking…";
  fold.append(summary, thinking);
  fold.hidden = true;
  element.append(fold, text);
  return { fold, summary, thinking, text };
}

async function* deltas(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function ask(text) {
  messages.push({ role: "user", content: text });
  turn("user").textContent = text;
  const box = answerBox();
  let content = "", began = 0, tokens = 0;
  stopping = new AbortController();
  $("send").textContent = "Stop";
  try {
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      signal: stopping.signal,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        model: $("model").value, messages, stream: true, stream_options: { include_usage: true },
        reasoning_effort: $("effort").value, temperature: Number($("temperature").value),
      }),
    });
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error?.message ?? `The server answered ${answer.status}.`);
    for await (const chunk of deltas(answer.body)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const delta = chunk.choices?.[0]?.delta ?? {};
      const thought = delta.reasoning_content ?? delta.reasoning ?? "";
      if (thought || delta.content) { began ||= performance.now(); tokens += 1; }
      if (thought) { box.fold.hidden = false; box.thinking.textContent += thought; }
      if (delta.content) { box.summary.textContent = "Thinking"; content += delta.content; box.text.textContent = content; }
      if (chunk.usage?.completion_tokens) tokens = chunk.usage.completion_tokens;
      const seconds = (performance.now() - began) / 1000;
      if (began && seconds > 0.2) $("speed").value = `${(tokens / seconds).toFixed(1)} tokens/s`;
      $("talk").scrollTop = $("talk").scrollHeight;
    }
  } catch (error) {
    const note = turn(error.name === "AbortError" ? "quiet" : "bad");
    note.textContent = error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`;
  }
  box.summary.textContent = "Thinking";
  if (content) messages.push({ role: "assistant", content });
  else messages.pop(); // nothing was answered: the question can be asked again
  stopping = null;
  $("send").textContent = "Send";
}

async function models() {
  const answer = await fetch("/v1/models").catch(() => null);
  const list = answer?.ok ? (await answer.json()).data : [];
  const wanted = new URLSearchParams(location.search).get("model");
  const options = list.map(({ id }) => new Option(id, id, id === wanted, id === wanted));
  $("model").replaceChildren(...(options.length ? options : [new Option("no model is served", "")]));
  $("send").disabled = !options.length;
  if (!options.length) $("speed").value = "The inference service does not answer; the start page shows its state.";
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stopping) return stopping.abort();
  const text = $("text").value.trim();
  if (!text || $("send").disabled) return;
  if (!messages.length) $("talk").replaceChildren();
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!stopping) $("ask").requestSubmit();
});
$("options").addEventListener("submit", (event) => event.preventDefault());
$("new").addEventListener("click", () => {
  stopping?.abort();
  messages = [];
  $("talk").replaceChildren();
  $("text").focus();
});
models();
