// The field in which questions are written: it grows, keeps its draft, and knows its keys.

const $ = (id) => document.getElementById(id);
const place = (id) => `tandem-chat-draft:${id ?? "new"}`;
let current; // the conversation whose draft is shown; undefined until the page is ready, null for a new one

// `acts`: send(text), stop() -> whether something ran, editLast(), fresh(), running()
export function start(acts) {
  const field = $("text");
  field.addEventListener("input", () => { fit(); save(); });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!acts.running()) $("ask").requestSubmit();
    } else if (event.key === "ArrowUp" && !field.value && acts.editLast()) event.preventDefault();
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (acts.running()) return acts.stop();
    const text = field.value.trim();
    if (!text || !acts.send(text)) return undefined;
    put("");
    return save();
  });
  document.addEventListener("keydown", (event) => {
    const elsewhere = document.querySelector("dialog[open], :popover-open");
    if (event.key === "Escape" && !event.defaultPrevented && !elsewhere && acts.running()) acts.stop();
    if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      acts.fresh();
    }
  });
}

// Show the draft of a conversation; null is a new one. What was typed before the page was ready stays.
export function draft(id) {
  const typed = current === undefined ? $("text").value : "";
  current = id;
  try { put(typed || (localStorage.getItem(place(id)) ?? "")); } catch { put(typed); }
}

// A new conversation has got its address: what has been typed meanwhile is its draft.
export function moved(id) {
  const text = $("text").value;
  put("");
  save();
  current = id;
  put(text);
  save();
}

export function put(text) {
  $("text").value = text;
  fit();
}

export function running(on) {
  $("send").textContent = on ? "Stop" : "Send";
  $("send").title = on ? "Stop (Esc)" : "Send (Enter)";
  $("send").classList.toggle("main", !on);
}

function save() {
  try {
    if ($("text").value) localStorage.setItem(place(current), $("text").value);
    else localStorage.removeItem(place(current));
  } catch { /* a private window may refuse: the draft lives as long as the page */ }
}

function fit() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight * 0.4)}px`;
}
