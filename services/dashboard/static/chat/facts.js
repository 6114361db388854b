// Quietly under an answer: which weights gave it, how fast, and with how many tokens.
import { el } from "../dom.js";

export function facts(message) {
  if (message.role === "user") return [];
  const { model, answered_by: by, sha256, usage, tokens_per_second: speed, first_seconds: first, effort, finish, corrected } = message;
  const fact = (known, text, title) => (known ? el("span", { title }, text()) : null);
  const measured = !corrected;
  return [
    corrected ? el("strong", {}, "Corrected") : null,
    fact(model, () => (by && by !== model ? `${model} (${by})` : model)),
    sha256 ? el("abbr.mono", { title: `SHA-256 of the weights that answered: ${sha256}` }, sha256.slice(0, 8)) : null,
    fact(effort && effort !== "medium", () => `${effort} effort`),
    fact(measured && usage, () => `${usage.prompt_tokens} + ${usage.completion_tokens} tokens`, "Tokens of the prompt, and of the answer with its thinking"),
    fact(measured && speed, () => `${speed.toFixed(0)}/s`, "Tokens a second"),
    fact(measured && first, () => `first ${first.toFixed(2)} s`, "Time until the first token"),
    fact(finish && !["stop", "stopped", "length"].includes(finish), () => `ended with ${finish}`),
  ].filter(Boolean);
}
