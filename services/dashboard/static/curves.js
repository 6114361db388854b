// The section "Curve" of a page: its controls, kept in the address, the values under the cursor, the table, the downloads.
import { call } from "./api.js";
import { tell } from "./dom.js";
import { Charts, COLUMNS } from "./chart.js";
import { csv, KEYS, Points, smoothed } from "./points.js";

const SOMETIMES = /^(validation|reward)_/; // not at every step, or not of every run
const POINTS = 2000, EXACT = 20_000, ROWS = 200;
const get = (id) => document.getElementById(id);

export class Curves {
  constructor() {
    this.section = get("curves");
    const asked = new URLSearchParams(location.search);
    const number = (name) => (asked.has(name) && Number.isFinite(Number(asked.get(name))) ? Number(asked.get(name)) : null);
    this.view = { smooth: Math.min(0.99, Math.max(0, number("smooth") ?? 0.6)), log: asked.get("log") === "1", from: number("from"), to: number("to") };
    this.own = JSON.parse(this.section.dataset.runs).map((run) => new Points(run));
    this.over = [];
    this.charts = new Charts(get("loss-chart"), get("small-charts"), this.view, (index) => this.#read(index), () => this.#changed());
    this.#controls();
    for (const id of (asked.get("over") ?? "").split(",").filter(Boolean)) this.#add(id);
  }

  // Reads the curves anew; true if every one could be read.
  async load() {
    const done = await Promise.all(this.own.map((run) => this.#fetch(run)));
    this.draw();
    return done.every(Boolean);
  }

  draw() {
    this.charts.runs = [...this.own, ...this.over].filter((run) => run.rows.size);
    const some = this.charts.runs.length > 0;
    get("no-curve").hidden = some;
    get("csv").disabled = get("png").disabled = !some;
    get("readout").hidden = get("values").parentElement.hidden = !some;
    document.querySelector(".chart-hint").hidden = !some;
    this.charts.draw();
  }

  async #fetch(run) {
    try {
      run.table(await call("GET", `/api/runs/${run.id}/metrics?points=${POINTS}`));
      return true;
    } catch (error) {
      return error.status === 404;
    }
  }

  async #add(id) {
    if ([...this.own, ...this.over].some((run) => run.id === id)) return;
    const option = [...(get("over")?.options ?? [])].find((one) => one.value === id);
    const name = option?.dataset.name ?? id;
    const run = new Points({ id, name: this.own.some((one) => one.name === name) ? `${name} (${id.slice(-4)})` : name });
    this.over.push(run);
    this.#changed();
    if (!(await this.#fetch(run)) || !run.rows.size) this.#remove(run);
    this.draw();
  }

  #remove(run) {
    this.over = this.over.filter((other) => other !== run);
    this.#changed();
    this.draw();
    get("over")?.focus();
  }

  #controls() {
    get("smooth").value = this.view.smooth;
    get("log-scale").checked = this.view.log;
    get("smooth").addEventListener("input", () => { this.view.smooth = Number(get("smooth").value); this.#changed(); this.draw(); });
    get("log-scale").addEventListener("change", () => { this.view.log = get("log-scale").checked; this.#changed(); this.draw(); });
    get("over")?.addEventListener("change", () => { if (get("over").value) this.#add(get("over").value); get("over").value = ""; });
    get("whole").addEventListener("click", () => { this.charts.zoom(null, null); get("loss-chart").focus(); });
    get("csv").addEventListener("click", () => this.#csv());
    get("png").addEventListener("click", async () => save(await this.charts.picture(this.charts.runs.map((run) => run.name).join(", ")), `${this.own[0].id}.png`));
    get("values").parentElement.addEventListener("toggle", () => this.#table());
    get("loss-chart").addEventListener("keydown", () => get("readout").setAttribute("aria-live", "polite"));
    get("loss-chart").addEventListener("blur", () => get("readout").removeAttribute("aria-live"));
    this.#changed();
  }

  // The address says what is shown, so that it can be passed on and reloaded.
  #changed() {
    const query = new URLSearchParams(location.search);
    const { smooth, log, from, to } = this.view;
    const said = { smooth: smooth === 0.6 ? null : smooth, log: log ? 1 : null, from, to, over: this.over.map((run) => run.id).join(",") || null };
    for (const [name, value] of Object.entries(said)) value == null ? query.delete(name) : query.set(name, value);
    history.replaceState(history.state, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
    get("whole").hidden = from == null && to == null;
  }

  // The values at the cursor, or the last ones.
  #read(index) {
    const { steps, columns } = this.charts.data;
    const rows = this.charts.runs.map((run, i) => {
      const at = index ?? steps.findLastIndex((_, k) => columns[i].loss[k] != null);
      const pairs = [["Step", steps[at]?.toLocaleString("en") ?? "–"]];
      for (const key of KEYS) {
        const known = columns[i][key];
        const value = key.startsWith("validation_") && index == null ? known.findLast((v) => v != null) : known[at];
        if (!SOMETIMES.test(key) || value != null) pairs.push([COLUMNS[key].name, value == null ? "–" : COLUMNS[key].write(value)]);
        if (key === "loss" && this.view.smooth > 0 && value != null) pairs.push(["Smoothed", COLUMNS.loss.write(smoothed(known, this.view.smooth)[at])]);
      }
      if (run.target && i === 0) pairs.push(["Target (dotted)", String(run.target)]);
      if (run.resumed?.length) pairs.push(["Resumed at", run.resumed.join(", ")]);
      return this.#reading(run, i, pairs);
    });
    get("readout").replaceChildren(...rows);
    this.#table();
  }

  #reading(run, i, pairs) {
    const row = element("div", "reading");
    const swatch = element("i", `swatch series-${i % 8}`);
    row.append(swatch);
    if (this.charts.runs.length > 1) {
      const name = element("a", "", run.name);
      name.href = `/runs/${run.id}`;
      row.append(name);
    }
    for (const [label, value] of pairs) {
      const pair = element("span", "", `${label} `);
      pair.append(element("b", "", value));
      row.append(pair, " ");
    }
    if (this.over.includes(run)) {
      const button = element("button", "plain", "Take away");
      button.setAttribute("aria-label", `Take ${run.name} away`);
      button.addEventListener("click", () => this.#remove(run));
      row.append(button);
    }
    return row;
  }

  #table() {
    if (!get("values").parentElement.open || !this.charts.data) return;
    const { steps, columns } = this.charts.data, runs = this.charts.runs;
    const { from, to } = this.view;
    const shown = steps.map((_, k) => k).filter((k) => steps[k] >= (from ?? 0) && steps[k] <= (to ?? Infinity));
    const every = Math.ceil(shown.length / ROWS) || 1;
    if (this.tabled === (this.tabled = `${steps.length} ${steps.at(-1)} ${from} ${to} ${runs.map((run) => run.id)}`)) return;
    const keys = KEYS.filter((key) => columns.some((one) => one[key].some((value) => value != null)));
    const table = element("table");
    const heads = ["Step", ...runs.flatMap((run) => keys.map((key) => (runs.length > 1 ? `${run.name}: ${COLUMNS[key].name}` : COLUMNS[key].name)))];
    table.createTHead().insertRow().append(...heads.map((text) => element("th", "n", text)));
    const body = table.createTBody();
    for (const k of shown.filter((_, i) => i % every === 0 || i === shown.length - 1)) {
      const cells = columns.flatMap((one) => keys.map((key) => (one[key][k] == null ? "" : COLUMNS[key].write(one[key][k]))));
      body.insertRow().append(...[steps[k].toLocaleString("en"), ...cells].map((text) => element("td", "n", text)));
    }
    get("values").replaceChildren(table);
  }

  async #csv() {
    try {
      const tables = await Promise.all(this.charts.runs.map(async ({ id }) => ({ id, table: await call("GET", `/api/runs/${id}/metrics?points=${EXACT}`) })));
      save(new Blob([csv(tables)], { type: "text/csv" }), `${this.own[0].id}.csv`);
    } catch (error) {
      tell(error.message);
    }
  }
}

function element(name, className = "", text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
