// GPUs and machine over time: one small chart each, the crosshair of all at the same moment, the values in their captions.
import { bytes, call } from "./api.js";

const home = document.getElementById("charts");
const seconds = Number(home.dataset.seconds);
const GIB = 2 ** 30;
const percent = (n) => `${Math.round(n)} %`;
const plots = []; // {plot, show, chart, time, box}
let shape = ""; // what the charts are made for: another GPU, another set of charts

// What there is to see: title, the columns with their names, how a value is written, the top of the scale.
function charts(history) {
  const gpus = history.gpus.map((gpu, i) => ({ ...gpu, label: [`GPU ${i}`, gpu.name ?? "not seen now", ...(gpu.held_by.length === 1 ? gpu.held_by : [])].join(", ") }));
  const of = (total) => (n) => `${bytes(n)}${total ? ` of ${bytes(total)}` : ""}`;
  const free = Math.max(...history.free.filter((n) => n !== null), 0);
  return [
    ...(gpus.length ? [
      { title: "GPU memory", top: Math.max(...gpus.map((gpu) => gpu.memory_total ?? Math.max(...gpu.memory_used)), GIB), size: true, series: gpus.map((gpu) => ({ name: gpu.label, values: gpu.memory_used, write: of(gpu.memory_total) })) },
      { title: "GPU use", top: 100, write: percent, series: gpus.map((gpu) => ({ name: gpu.label, values: gpu.use_percent, write: percent })) },
    ] : []),
    { title: "Memory of the machine", top: history.memory_total, size: true, series: [{ name: "", values: history.memory_used, write: of(history.memory_total) }] },
    { title: "Load", top: Math.max(history.cores, ...history.load), series: [{ name: "", values: history.load, write: (n) => `${n.toFixed(1)} on ${history.cores} core${history.cores === 1 ? "" : "s"}` }] },
    { title: "Free disk", top: free * 1.1 || GIB, size: true, series: [{ name: "", values: history.free, write: of(history.disk_total) }] },
  ];
}

const known = (values) => values.filter((value) => value !== null);
const now = (values) => known(values.slice(-4)).at(-1) ?? null; // nothing for a while is nothing now

function told({ title, series }) {
  const parts = series.map(({ name, values, write }) => {
    const said = now(values) === null ? "nothing now" : `now ${write(now(values))}`;
    const most = known(values).length ? `, at most ${write(Math.max(...known(values)))}` : "";
    return `${name ? `${name}: ` : ""}${said}${most}`;
  });
  return `${title}. ${parts.join("; ")}.`;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const probe = element("span", { hidden: "" });
function colour(name) { // a canvas does not know light-dark()
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function clock(moment) {
  return new Date(moment * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function options(chart, plot, range, show) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const unit = chart.size ? GIB : 1;
  return {
    width: plot.clientWidth, height: 130, legend: { show: false }, padding: [8, 8, 0, 0],
    cursor: { sync: { key: "system" }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_, ticks) => ticks.map(clock) },
      { ...axis, size: 44, space: 26, incrs: (chart.size ? [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192] : [0.5, 1, 2, 4, 5, 10, 25, 50, 100]).map((n) => n * unit),
        values: (_, ticks) => ticks.map((n) => (chart.size ? `${n / GIB} G` : chart.write ? chart.write(n) : n)) },
    ],
    series: [{}, ...chart.series.map((_, i) => ({ stroke: colour(`--series-${(i % 6) + 1}`), width: 1.5, fill: chart.series.length === 1 ? colour("--fill") : undefined, points: { show: false } }))],
    hooks: { setCursor: [(u) => show(u.cursor.idx)] },
  };
}

function make(chart, time) {
  const outputs = chart.series.map(() => element("span", { class: "n" }));
  const keys = chart.series.map(({ name }, i) => element("span", { class: "key" }, ...(chart.series.length > 1 || name ? [element("i", { class: `swatch s${(i % 6) + 1}` }), name, " "] : []), outputs[i]));
  const moment = element("time", { class: "quiet" });
  const box = element("div", { class: "plot", role: "img" });
  const figure = element("figure", { class: chart.title.startsWith("GPU") ? "card gpu" : "card" }, element("figcaption", {}, element("strong", {}, chart.title), moment, element("div", { class: "keys" }, ...keys)), box);
  home.append(figure);
  const made = { chart, box };
  made.show = (index) => {
    const { series } = made.chart;
    series.forEach(({ values, write }, i) => {
      const value = index == null ? now(values) : values[index];
      outputs[i].textContent = value == null ? "–" : write(value);
    });
    moment.textContent = index == null ? "" : clock(made.time[index]);
  };
  made.time = time;
  made.plot = new window.uPlot(options(chart, box, () => [0, made.chart.top], (index) => made.show(index)), [time, ...chart.series.map(({ values }) => values)], box);
  plots.push(made);
}

function draw(history) {
  const wanted = charts(history);
  const wants = JSON.stringify(history.gpus.map((gpu) => [gpu.uuid, gpu.name, gpu.held_by]));
  if (wants !== shape) {
    for (const { plot } of plots.splice(0)) plot.destroy();
    home.replaceChildren(probe);
    for (const chart of wanted) make(chart, history.time);
    shape = wants;
  }
  wanted.forEach((chart, i) => {
    Object.assign(plots[i], { chart, time: history.time });
    plots[i].plot.setData([history.time, ...chart.series.map(({ values }) => values)]);
    plots[i].box.setAttribute("aria-label", told(chart));
    plots[i].show(plots[i].plot.cursor.idx);
  });
}

let read = 0;
async function look() {
  read = Date.now();
  try {
    draw(await call("GET", `/api/system/history?seconds=${seconds}`));
  } catch (error) {
    if (!plots.length) home.replaceChildren(element("p", { class: "bad" }, error.message));
  }
}

look();
document.body.addEventListener("slow", () => Date.now() - read > (seconds / 360) * 1000 - 500 && look());
new ResizeObserver(() => plots.forEach(({ plot, box }) => plot.setSize({ width: box.clientWidth, height: 130 }))).observe(home);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { shape = ""; look(); });
