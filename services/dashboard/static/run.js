// One run as it happens: the curve and the figures from its events, the log by page.
"use strict";

const page = document.getElementById("run");
const api = `/api/runs/${page.dataset.run}`;
const losses = new Map(); // step -> training loss
const checks = new Map(); // step -> validation loss
const recent = []; // [milliseconds, step], for the time that is left
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function draw() {
  const svg = document.getElementById("curve");
  const width = svg.clientWidth, height = svg.clientHeight, left = 44, bottom = 20, top = 10, right = 12;
  const points = [...losses].sort((a, b) => a[0] - b[0]);
  const all = [...points, ...checks];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (!all.length) {
    svg.append(node("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "The curve begins with the first step."));
    return;
  }
  const last = Math.max(...all.map((p) => p[0])), first = Math.min(...all.map((p) => p[0]));
  const high = Math.max(...all.map((p) => p[1])), low = Math.min(...all.map((p) => p[1]), high * 0.98);
  const x = (step) => left + ((step - first) / (last - first || 1)) * (width - left - right);
  const y = (loss) => top + ((high - loss) / (high - low || 1)) * (height - top - bottom);
  for (const value of [high, (high + low) / 2, low]) {
    svg.append(node("line", { x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toPrecision(3)));
  }
  svg.append(node("text", { x: left, y: height - 4 }, `step ${first}`));
  svg.append(node("text", { x: width - right, y: height - 4, "text-anchor": "end" }, `step ${last}`));
  svg.append(node("path", { d: points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("") }));
  for (const [step, loss] of checks) {
    const dot = node("circle", { cx: x(step), cy: y(loss), r: 3.5 });
    dot.append(node("title", {}, `validation ${loss.toFixed(3)} at step ${step}`));
    svg.append(dot);
  }
}

function take(event) {
  if (event.loss != null) losses.set(event.step, event.loss);
  if (event.validation_loss != null) checks.set(event.step, event.validation_loss);
}

function figures(event) {
  if (event.loss == null) return;
  const step = document.getElementById("step"), loss = document.getElementById("loss"), left = document.getElementById("left");
  const steps = Number(step.textContent.split("/")[1] ?? 0);
  loss.dataset.first ||= event.loss;
  loss.textContent = `${Number(loss.dataset.first).toFixed(3)} → ${event.loss.toFixed(3)}`;
  step.textContent = steps ? `${event.step} / ${steps}` : event.step;
  if (event.tokens_per_second) document.getElementById("speed").textContent = Math.round(event.tokens_per_second).toLocaleString("en");
  recent.push([Date.parse(event.time), event.step]);
  if (recent.length > 20) recent.shift();
  if (!steps) return;
  document.getElementById("bar").value = event.step / steps;
  const [began, from] = recent[0];
  if (event.step > from) left.textContent = span(((Date.parse(event.time) - began) / (event.step - from)) * (steps - event.step));
}

function span(milliseconds) {
  const seconds = Math.round(milliseconds / 1000);
  return seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

async function curve() {
  const { columns, rows } = await call("GET", `${api}/metrics?points=600`);
  let latest = null;
  for (const row of rows) {
    const event = Object.fromEntries(columns.map((name, i) => [name, row[i]]));
    take(event);
    if (event.tokens_per_second) latest = event.tokens_per_second;
  }
  if (latest) document.getElementById("speed").textContent = Math.round(latest).toLocaleString("en");
  draw();
}

async function log() {
  const element = document.getElementById("log");
  const { text, next } = await call("GET", `${api}/log?after=${page.dataset.log}`);
  if (!text) return;
  const atEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 8;
  element.textContent = (page.dataset.log === "0" ? "" : element.textContent) + text;
  page.dataset.log = next;
  if (atEnd) element.scrollTop = element.scrollHeight;
}

function follow() {
  const source = new EventSource(`${api}/events/stream?after=${page.dataset.after}`);
  let waiting = false;
  source.addEventListener("metric", (message) => {
    const event = JSON.parse(message.data);
    take(event);
    figures(event);
    if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
    waiting = true;
  });
  for (const type of ["status", "warning"]) source.addEventListener(type, refresh);
  const timer = setInterval(() => { if (!document.hidden) log().catch(() => {}); }, 1500);
  source.addEventListener("end", async () => {
    source.close();
    clearInterval(timer);
    await log().catch(() => {});
    location.reload();
  });
}

const logBox = document.getElementById("log");
logBox.scrollTop = logBox.scrollHeight;
addEventListener("resize", draw);
curve().catch(() => draw());
if (!("ended" in page.dataset)) follow();
