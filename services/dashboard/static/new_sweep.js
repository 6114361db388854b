// The form of a new sweep: what is ticked is searched, and what all of it takes is said before it is sent.
import { call, span, values } from "./api.js";

const form = document.getElementById("new-sweep");
const takes = document.getElementById("takes"), send = document.getElementById("send");
let asking = null;

function show() {
  const boxes = [...form.querySelectorAll("[data-on]")];
  for (const box of boxes) document.getElementById(box.dataset.on).disabled = !box.checked;
  send.disabled = !boxes.some((box) => box.checked);
}

async function estimate() {
  asking?.abort();
  const own = (asking = new AbortController());
  const { dataset, recipe, overrides } = values(form), { trials } = form.elements;
  try {
    const { seconds, steps } = await call("POST", "/api/runs/estimate", { kind: "train", dataset, recipe, overrides }, { signal: own.signal });
    const all = seconds == null ? "" : `, ${span(trials.value * seconds)} in all`;
    takes.textContent = `A trial has ${steps.toLocaleString("en")} ${steps === 1 ? "step" : "steps"}${seconds == null ? "; how long they take is known after the first run" : ` and takes about ${span(seconds)}${all}, less where trials are given up`}.`;
  } catch (error) {
    if (!own.signal.aborted) takes.textContent = error.message;
  }
}

form?.addEventListener("change", (event) => { show(); if (!event.target.matches("[hx-get]")) estimate(); });
document.body.addEventListener("htmx:afterSettle", (event) => { if (form?.contains(event.target)) { show(); estimate(); } });
if (form) { show(); estimate(); }
