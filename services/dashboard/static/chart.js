// Curves of runs with uPlot: loss large, the rest small, one cursor over all; zoomed, smoothed, laid over each other.
/* global uPlot */
import { bytes } from "./api.js";
import { joined, KEYS, smoothed } from "./points.js";

export const plain = (value) => (value === 0 ? "0" : Math.abs(value) < 0.001 ? value.toExponential(1) : value < 100 ? String(+value.toPrecision(3)) : Math.round(value).toLocaleString("en"));
export const COLUMNS = {
  loss: { name: "Loss", write: (v) => v.toFixed(v < 0.1 ? 4 : 3) },
  validation_loss: { name: "Validation", write: (v) => v.toFixed(v < 0.1 ? 4 : 3) },
  reward_margin: { name: "Chosen over rejected", write: plain },
  validation_reward_margin: { name: "Chosen over rejected, validation", write: plain },
  reward_accuracy: { name: "Share preferred", write: plain },
  validation_reward_accuracy: { name: "Share preferred, validation", write: plain },
  learning_rate: { name: "Learning rate", write: plain },
  grad_norm: { name: "Gradient norm", write: plain },
  tokens_per_second: { name: "Tokens per second", write: (v) => Math.round(v).toLocaleString("en") },
  memory_bytes: { name: "Memory", write: bytes, tick: (v) => `${+(v / 2 ** 30).toFixed(2)} GiB`, steps: Array.from({ length: 24 }, (_, n) => 2 ** (20 + n)) },
};
const SMALL = ["reward_margin", "reward_accuracy", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes"];
const VALIDATION = { dash: [5, 4], width: 1.5 };
const WAIT = 150; // milliseconds: what comes in between is drawn at once

// A canvas knows no variables of CSS: what they come to inside `place` is read off an element.
export function colours(place) {
  const probe = document.createElement("i");
  place.append(probe);
  const read = (name) => { probe.className = name; return getComputedStyle(probe).color; };
  const found = { quiet: read("ink-quiet"), line: read("ink-line"), ground: read("ink-ground"), text: read("ink-text"), series: [...Array(8).keys()].map((i) => read(`series-${i}`)) };
  probe.remove();
  return found;
}

export class Charts {
  // `view` is {smooth, log, from, to}; `told(index)` says where the cursor is, `zoomed()` that `view` has changed.
  constructor(large, small, view, told, zoomed) {
    Object.assign(this, { large, small, view, told, zoomed });
    this.runs = [];
    this.plots = [];
    this.shape = "";
    new ResizeObserver(() => this.#size()).observe(large.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.colour = colours(this.large); this.draw(); });
    large.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("pointerup", () => setTimeout(() => this.draw(), 0));
  }

  draw() {
    this.waiting ??= setTimeout(() => {
      this.waiting = null;
      this.#draw();
    }, WAIT);
  }

  zoom(from, to) {
    Object.assign(this.view, { from, to });
    this.zoomed();
    this.#draw();
  }

  #draw() {
    this.data = joined(this.runs);
    if (!this.data.steps.length || this.plots.some((plot) => plot.select.width)) return; // not while somebody drags
    const keys = SMALL.filter((key) => this.data.columns.some((columns) => columns[key].some((value) => value != null)));
    const shape = JSON.stringify([this.runs.map((run) => run.id), keys, this.view.log, this.view.smooth > 0]);
    if (shape !== this.shape) this.#build(keys);
    this.shape = shape;
    const { from, to } = this.view, { steps } = this.data;
    const range = { min: from ?? steps[0], max: to ?? Math.max(steps.at(-1), steps[0] + 1) };
    for (const plot of this.plots) {
      plot.batch(() => {
        plot.setData([steps, ...plot.lines.map((line) => line.values())], false);
        plot.setScale("x", range);
      });
    }
    this.large.setAttribute("aria-label", `Loss by step. ${this.runs.map((run) => run.summary()).join(". ")}.`);
    this.told(this.plots[0].cursor.idx);
  }

  #build(keys) {
    this.plots.forEach((plot) => plot.destroy());
    this.large.hidden = this.small.hidden = false;
    this.colour = colours(this.large);
    this.small.replaceChildren(...keys.map((key) => {
      const box = document.createElement("div");
      Object.assign(box, { className: "chart" });
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", `${COLUMNS[key].name} by step; the table below has the values`);
      const name = document.createElement("small");
      name.textContent = COLUMNS[key].name;
      box.append(name);
      return box;
    }));
    const small = keys.map((key, i) => this.#plot(this.small.children[i], key, this.#smalls(key), false));
    this.plots = [this.#plot(this.large, "loss", this.#losses(), this.view.log), ...small];
    this.#size();
  }

  // A figure of each run and, where it is validated too, that as a dashed line.
  #smalls(key) {
    const validated = `validation_${key}`;
    return this.runs.flatMap((_, run) => [this.#line(run, key), ...(KEYS.includes(validated) ? [this.#line(run, validated, VALIDATION)] : [])]);
  }

  #losses() {
    const lines = this.runs.flatMap((run, i) => {
      const raw = this.#line(i, "loss", this.view.smooth > 0 ? { alpha: 0.3, width: 1 } : {});
      const smooth = { ...this.#line(i, "loss"), values: () => smoothed(this.data.columns[i].loss, this.view.smooth) };
      const validation = this.#line(i, "validation_loss", { ...VALIDATION, points: { show: true, size: 7, fill: () => this.colour.ground } });
      return [raw, ...(this.view.smooth > 0 ? [smooth] : []), validation];
    });
    const target = this.runs[0].target;
    if (target) lines.push({ values: () => this.data.steps.map(() => target), options: { stroke: () => this.colour.quiet, dash: [2, 4], width: 1, points: { show: false } } });
    return lines;
  }

  #line(run, key, options = {}) {
    return { values: () => this.data.columns[run][key], options: { stroke: () => this.colour.series[run % 8], width: 2, spanGaps: true, points: { show: false }, ...options } };
  }

  #plot(box, key, lines, log) {
    const axis = { stroke: () => this.colour.quiet, grid: { stroke: () => this.colour.line, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const large = box === this.large;
    const plot = new uPlot({
      width: Math.max(box.clientWidth, 100),
      height: large ? 300 : 120,
      legend: { show: false },
      scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
      axes: [
        { ...axis, size: 28, values: (_, splits) => splits.map((v) => (Number.isInteger(v) ? v.toLocaleString("en") : "")) },
        { ...axis, size: large ? 56 : 68, space: large ? 40 : 28, ...(COLUMNS[key].steps && { incrs: COLUMNS[key].steps }), values: (_, splits) => splits.map((v) => (v == null ? "" : (COLUMNS[key].tick ?? plain)(v))) },
      ],
      series: [{}, ...lines.map((line) => line.options)],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false },
        points: { size: 6 },
        sync: { key: "curves", filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        bind: { dblclick: () => () => this.zoom(null, null) },
      },
      hooks: {
        setCursor: [(plot) => large && this.told(plot.cursor.idx)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => this.#resumed(plot)],
      },
    }, [[], ...lines.map(() => [])], box);
    plot.lines = lines;
    return plot;
  }

  #selected(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const [from, to] = [left, left + width].map((x) => Math.round(plot.posToVal(x, "x")));
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (to > from) this.zoom(from, to);
  }

  // A line where a later attempt went on.
  #resumed(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = this.colour.quiet;
    ctx.setLineDash([3, 5]);
    for (const step of this.runs[0]?.resumed ?? []) {
      const x = plot.valToPos(step, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  #size() {
    for (const plot of this.plots) {
      const width = plot.root.parentElement.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: plot.height });
    }
  }

  #key(event) {
    const { steps } = this.data ?? {}, plot = this.plots[0];
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const { from, to } = this.view;
    const low = Math.max(0, steps.findIndex((step) => step >= (from ?? 0))), high = to == null ? steps.length - 1 : steps.findLastIndex((step) => step <= to);
    const index = plot.cursor.idx ?? high, stride = event.shiftKey ? 10 : 1, half = Math.max(2, (high - low) / 4);
    const span = (reach) => this.zoom(steps[Math.max(0, Math.round(index - reach))], steps[Math.min(steps.length - 1, Math.round(index + reach))]);
    const acts = {
      ArrowLeft: () => this.#point(Math.max(low, index - stride)), ArrowRight: () => this.#point(Math.min(high, index + stride)),
      Home: () => this.#point(low), End: () => this.#point(high), Escape: () => this.zoom(null, null),
      "+": () => span(half), "-": () => (half * 4 >= steps.length - 1 ? this.zoom(null, null) : span(half * 4)),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  #point(index) {
    const plot = this.plots[0];
    plot.setCursor({ left: plot.valToPos(this.data.steps[index], "x"), top: 10 }, true, true);
  }

  // All charts on one canvas.
  picture(title) {
    const scale = devicePixelRatio, canvases = this.plots.map((plot) => plot.ctx.canvas), top = 34 * scale;
    const canvas = document.createElement("canvas");
    const wide = canvases[0].width, small = canvases.slice(1), row = 26 * scale;
    canvas.width = Math.max(wide, small.length ? small[0].width : 0);
    const places = [];
    let x = 0, y = top + canvases[0].height + 10 * scale;
    for (const one of small) {
      if (x && x + one.width > canvas.width) { x = 0; y += one.height + row; }
      places.push([x, y]);
      x += one.width;
    }
    canvas.height = small.length ? y + row + small[0].height : top + canvases[0].height;
    const pen = canvas.getContext("2d");
    pen.fillStyle = this.colour.ground;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = this.colour.text;
    pen.font = `${14 * scale}px system-ui`;
    pen.fillText(title, 10 * scale, 22 * scale);
    pen.drawImage(canvases[0], 0, top);
    small.forEach((one, i) => {
      pen.fillText(this.small.children[i].firstChild.textContent, places[i][0] + 10 * scale, places[i][1] + 16 * scale);
      pen.drawImage(one, places[i][0], places[i][1] + row);
    });
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}
