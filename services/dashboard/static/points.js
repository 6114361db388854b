// The points of a run's curve: each step once, however often it was told, and never more than can be drawn.

export const KEYS = ["loss", "validation_loss", "reward_margin", "validation_reward_margin", "reward_accuracy", "validation_reward_accuracy",
  "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes"];
const MOST = 6000;

export class Points {
  constructor(run) {
    Object.assign(this, run); // id, name, target, resumed
    this.rows = new Map();
    this.last = null;
  }

  // One `metric` event, or one row of /metrics.
  take(event) {
    const row = this.rows.get(event.step) ?? {};
    for (const key of KEYS) if (event[key] != null) row[key] = event[key];
    this.rows.set(event.step, row);
    this.sorted = null;
    if (this.rows.size > MOST) this.#thin();
  }

  table({ columns, rows }) {
    for (const row of rows) this.take(Object.fromEntries(columns.map((name, i) => [name, row[i]])));
  }

  // Every second point goes; validations are few and stay.
  #thin() {
    const all = [...this.rows];
    this.rows = new Map(all.filter(([, row], i) => i % 2 === 0 || row.validation_loss != null || i === all.length - 1));
  }

  steps() {
    return (this.sorted ??= [...this.rows.keys()].sort((a, b) => a - b));
  }

  column(key) {
    return this.steps().map((step) => this.rows.get(step)[key] ?? null);
  }

  // What a person who does not see the curve should know of it.
  summary() {
    const told = this.steps().filter((step) => this.rows.get(step).loss != null);
    if (!told.length) return `${this.name}: no point yet`;
    const loss = (step) => this.rows.get(step).loss;
    const low = told.reduce((best, step) => (loss(step) < loss(best) ? step : best));
    const at = (step) => `${loss(step).toFixed(3)} at step ${step}`;
    const checked = this.steps().filter((step) => this.rows.get(step).validation_loss != null).pop();
    const validation = checked === undefined ? "" : `; validation loss ${this.rows.get(checked).validation_loss.toFixed(3)} at step ${checked}`;
    return `${this.name}: loss from ${at(told[0])} to ${at(told.at(-1))}, lowest ${at(low)}${validation}`;
  }
}

// Exponential smoothing; the weight that early points lack is made up for, so that the line begins where the points do.
export function smoothed(values, weight) {
  let sum = 0, share = 0;
  return values.map((value) => {
    if (value == null) return null;
    sum = weight * sum + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return sum / share;
  });
}

// [steps of all runs, then for each run its columns], with null where a run has no such step.
export function joined(runs) {
  const steps = runs.length === 1 ? runs[0].steps() : [...new Set(runs.flatMap((run) => run.steps()))].sort((a, b) => a - b);
  const columns = runs.map((run) => Object.fromEntries(KEYS.map((key) => [key, steps.map((step) => run.rows.get(step)?.[key] ?? null)])));
  return { steps, columns };
}

export function csv(tables) {
  const columns = [...new Set(tables.flatMap(({ table }) => table.columns))];
  const lines = tables.flatMap(({ id, table }) =>
    table.rows.map((row) => [id, ...columns.map((name) => row[table.columns.indexOf(name)] ?? "")].join(",")));
  return [["run", ...columns].join(","), ...lines].join("\n") + "\n";
}
