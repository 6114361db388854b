// Charts of what benchmarks measured, a line for each model. The numbers stand in #measured, which htmx renews.
/* global uPlot */
import { colours, plain } from "./chart.js";

const HEIGHT = 180, DAY = 86_400;
const box = document.getElementById("speed-charts");
const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
let plots = [], drawn = "", colour = null;

function draw() {
  const told = document.getElementById("measured")?.dataset.charts ?? "[]";
  if (told === drawn) return;
  drawn = told;
  plots.forEach((plot) => plot.destroy());
  const charts = JSON.parse(told).filter((chart) => chart.lines.flat().some((value) => value != null));
  box.closest("section").hidden = !charts.length;
  colour = colours(box);
  box.replaceChildren(...charts.map(frame));
  plots = charts.map((chart, i) => plot(chart, box.children[i]));
}

function frame(chart) {
  const [figure, title, host, values] = ["div", "small", "div", "small"].map((name) => document.createElement(name));
  title.textContent = chart.title;
  values.className = "values-at";
  figure.className = "chart";
  figure.setAttribute("role", "img");
  const last = chart.names.map((name, i) => [name, chart.lines[i].findLast((value) => value != null)]).filter(([, value]) => value != null);
  figure.setAttribute("aria-label", `${chart.title}. Last: ${last.map(([name, value]) => `${name} ${plain(value)}`).join(", ")}. The table has the values.`);
  figure.append(title, host, values);
  return figure;
}

function plot(chart, figure) {
  const axis = { stroke: () => colour.quiet, grid: { stroke: () => colour.line, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const ends = [chart.x[0], chart.x.at(-1)], room = chart.labels ? 0.25 : Math.max(1800, (ends[1] - ends[0]) * 0.04);
  const tick = new Intl.DateTimeFormat(undefined, ends[1] - ends[0] < DAY ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { day: "numeric", month: "short" });
  const across = chart.labels ? { splits: () => chart.x, values: () => chart.labels } : { space: 80, values: (_, splits) => splits.map((second) => tick.format(second * 1000)) };
  return new uPlot({
    width: Math.max(figure.clientWidth, 100),
    height: HEIGHT,
    legend: { show: false },
    scales: { x: { time: !chart.labels, range: [ends[0] - room, ends[1] + room] }, y: { range: (_, low, high) => [0, high * 1.1 || 1] } },
    axes: [
      { ...axis, ...across, size: 28 },
      { ...axis, size: 56, space: 32, values: (_, splits) => splits.map(plain) },
    ],
    series: [{}, ...chart.lines.map((_, i) => ({ stroke: () => colour.series[i % 8], width: 2, spanGaps: true, points: { show: true, size: 6, fill: () => colour.series[i % 8] } }))],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
    hooks: { setCursor: [({ cursor }) => { figure.lastChild.textContent = reading(chart, cursor.idx); }] },
  }, [chart.x, ...chart.lines], figure.children[1]);
}

function reading(chart, at) {
  if (at == null) return "";
  const values = chart.names.map((name, i) => [name, chart.lines[i][at]]).filter(([, value]) => value != null);
  const where = chart.labels ? chart.labels[at] : when.format(new Date(chart.x[at] * 1000));
  return `${where}: ${values.map(([name, value]) => `${name} ${plain(value)}`).join(", ")}`;
}

function again() {
  drawn = "";
  draw();
}

if (box) {
  new ResizeObserver(() => plots.forEach((one) => one.setSize({ width: one.root.parentElement.clientWidth, height: HEIGHT }))).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  document.body.addEventListener("htmx:afterSettle", draw);
  draw();
}

// The form: something must be ticked of each kind.
const form = document.getElementById("measure-form");
form?.addEventListener("change", () => {
  const empty = [...form.querySelectorAll("fieldset")].some((group) => !group.querySelector(":checked"));
  form.querySelector("button.main").disabled = empty;
});
