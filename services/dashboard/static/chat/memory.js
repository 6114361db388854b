// What this browser remembers of the chat, in one value.
const KEY = "tandem-chat";
export function remembered() {
  try { return JSON.parse(localStorage.getItem(KEY) ?? "{}"); } catch { return {}; }
}
export function remember(values) {
  try { localStorage.setItem(KEY, JSON.stringify({ ...remembered(), ...values })); } catch { /* a private window may refuse */ }
}
