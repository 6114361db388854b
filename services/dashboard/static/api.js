// Calls of the REST API: a JSON value, or an Error whose message a person can read.

export class Refused extends Error {
  constructor(message, status, details = []) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

export async function call(method, url, body, options = {}) {
  const request = { method, ...options, headers: { Accept: "application/json", ...options.headers } };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(url, request).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refused("The dashboard does not answer. It may be restarting; runs go on without it.", 0);
  });
  if (answer.status === 401) throw new Refused("You have been signed out. Open a sign-in link in another tab, then try again.", 401);
  const value = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) {
    const error = value?.error ?? {};
    throw new Refused(error.message ?? `The dashboard answered ${answer.status}.`, answer.status, error.details);
  }
  return value;
}

// A form's values as the API takes them: numbers and yes/no by the kind of their field, empty ones left out, and
// "overrides.steps" as a value inside another. Boxes of one name that ends in "[]" are a list of those that are ticked.
export function values(form) {
  const found = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || (field.type === "radio" && !field.checked)) continue;
    if (field.name.endsWith("[]")) {
      const list = (found[field.name.slice(0, -2)] ??= []);
      if (field.checked) list.push("number" in field.dataset ? Number(field.value) : field.value);
      continue;
    }
    let value = field.value;
    if (field.type === "checkbox") value = field.checked;
    else if (value === "") continue;
    else if (field.type === "number" || field.type === "range") value = Number(value);
    const path = field.name.split(".");
    const last = path.pop();
    let place = found;
    for (const part of path) place = place[part] ??= {};
    place[last] = value;
  }
  return found;
}

export const bytes = (n) => {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (n < 1024) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} GiB`;
};

export const span = (seconds) =>
  seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
