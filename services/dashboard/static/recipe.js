// Values of a recipe: held against their bounds, written as YAML and as a command.

export const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
export const written = (value) => (value == null ? "empty" : value === true ? "on" : value === false ? "off" : Array.isArray(value) ? value.join(", ") || "none" : String(value));

// What is wrong with a value of a field {type, bounds}, in a sentence; empty if it is within its bounds.
export function checked({ type, bounds }, value) {
  if (type !== "integer" && type !== "number") return "";
  if (value === null) return bounds.nullable ? "" : "A number is needed here.";
  if (typeof value !== "number" || !Number.isFinite(value)) return `“${value}” is not a number.`;
  if (type === "integer" && !Number.isInteger(value)) return "A whole number is needed here.";
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } = bounds;
  if (minimum !== undefined && value < minimum) return `It cannot be below ${minimum}.`;
  if (exclusiveMinimum !== undefined && value <= exclusiveMinimum) return `It must be above ${exclusiveMinimum}.`;
  if (maximum !== undefined && value > maximum) return `It cannot be above ${maximum.toLocaleString("en")}.`;
  if (exclusiveMaximum !== undefined && value >= exclusiveMaximum) return `It must be below ${exclusiveMaximum}.`;
  return "";
}

const WORD = /^(?!(?:true|false|null|yes|no|on|off|~)$)[A-Za-z_][\w./+-]*$/i;
const scalar = (value) => (typeof value === "string" && WORD.test(value) ? value : JSON.stringify(value));

export const yaml = (values) => Object.entries(values).map(([name, value]) => `${name}: ${scalar(value)}\n`).join("");

// The same job for a shell. `named` says that the adapter's name is not the data set's.
export function command({ dataset, recipe, name, overrides }, named) {
  const words = ["tandem", "train", dataset, "--recipe", recipe, ...(named ? ["--name", name] : [])];
  for (const [key, value] of Object.entries(overrides)) words.push("--set", `${key}=${scalar(value)}`);
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}
