// The list of conversations: searched, opened, renamed, taken along, brought in, deleted.
import { call } from "../api.js";
import { asked, button, confirmed, el } from "../dom.js";
import { remember, remembered } from "./memory.js";

const $ = (id) => document.getElementById(id);
const PAGE = 50;
const narrow = matchMedia("(max-width: 900px)");
let shown = PAGE;
let open = null; // id of the conversation on the page
let acts = null;

// `acts`: open(id), gone(id), renamed(id, title), say(text), running(id)
export function start(given) {
  acts = given;
  let typing = null;
  $("find").addEventListener("input", () => {
    clearTimeout(typing);
    shown = PAGE;
    typing = setTimeout(load, 200);
  });
  $("import").addEventListener("change", bring);
  $("more-chats").addEventListener("click", () => { shown += PAGE; load(); });
  $("chats-open").addEventListener("click", () => unfold($("talk-side").hidden));
  $("chats-close").addEventListener("click", () => { unfold(false); $("chats-open").focus(); });
  $("talk-side").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && narrow.matches) { unfold(false); $("chats-open").focus(); }
  });
  narrow.addEventListener("change", () => unfold(!narrow.matches && remembered().list !== false, false));
  unfold(!narrow.matches && remembered().list !== false, false);
}

export function unfold(on, keep = true) {
  $("talk-side").hidden = !on;
  $("chats-open").setAttribute("aria-expanded", String(on));
  if (keep && !narrow.matches) remember({ list: on });
  if (on && keep) $("find").focus();
}

export const fold = () => narrow.matches && unfold(false, false);

export async function load(id = open) {
  open = id;
  const q = $("find").value.trim();
  try {
    const list = await call("GET", `/api/chats?limit=${shown}&q=${encodeURIComponent(q)}`);
    const none = q ? `No conversation has “${q}” in it.` : "No conversation yet. The first question begins one.";
    $("chats").replaceChildren(...(list.items.length ? days(list.items) : [el("p.quiet", {}, none)]));
    $("more-chats").hidden = !list.next;
  } catch (error) {
    $("chats").replaceChildren(el("p.bad", {}, error.message), button("Try again", () => load()));
  }
}

function days(items) {
  const now = new Date();
  const start = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const groups = new Map();
  for (const item of items) {
    const moment = new Date(item.updated).getTime();
    const day = moment >= start ? "Today" : moment >= start - 86_400_000 ? "Yesterday" : "Earlier";
    groups.set(day, [...(groups.get(day) ?? []), item]);
  }
  return [...groups].flatMap(([day, list]) => [el("h3", {}, day), el("ul", {}, ...list.map(line))]);
}

function line(item) {
  const follow = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    acts.open(item.id);
  };
  const current = item.id === open ? "page" : null;
  const link = el("a", { href: `/chat/${item.id}`, title: item.title, "aria-current": current, onclick: follow }, item.title);
  if (acts.running(item.id)) link.classList.add("state", "running");
  const more = button("⋯", () => menu(item, more), { "aria-label": `More for “${item.title}”`, "aria-haspopup": "menu" });
  return el("li", {}, link, more);
}

// The menu of one conversation, at the button that opens it.
export function menu(item, control) {
  const pick = (text, act) => button(text, () => { box.hidePopover(); act(); }, { role: "menuitem" });
  const file = (text, format) => {
    const href = `/api/chats/${item.id}/export?format=${format}`;
    return el("a", { role: "menuitem", href, download: "", onclick: () => box.hidePopover() }, text);
  };
  const box = el("div.popup", { popover: "auto", role: "menu", "aria-label": item.title },
    pick("Rename", () => rename(item)),
    file("Export as JSON", "json"),
    file("Export as Markdown", "markdown"),
    pick("Delete", () => remove(item)));
  box.addEventListener("toggle", (event) => {
    if (event.newState === "open") return;
    if (box.contains(document.activeElement)) control.focus();
    setTimeout(() => box.remove());
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...box.children];
    all.at((all.indexOf(document.activeElement) + step) % all.length).focus();
  });
  document.querySelector("main").append(box);
  box.showPopover();
  const { bottom, top, right } = control.getBoundingClientRect();
  const below = bottom + box.offsetHeight < innerHeight;
  box.style.left = `${Math.max(8, right - box.offsetWidth)}px`;
  box.style.top = `${below ? bottom + 2 : Math.max(8, top - box.offsetHeight - 2)}px`;
  box.firstChild.focus();
}

async function rename(item) {
  const title = await asked("Rename the conversation", item.title, "Rename");
  if (!title) return;
  await attempt(() => call("PATCH", `/api/chats/${item.id}`, { title }));
  acts.renamed(item.id, title);
  load();
}

async function remove(item) {
  const lost = "It cannot be brought back; export it first if you may want it.";
  if (!(await confirmed(`Delete “${item.title}” with all its branches? ${lost}`, "Delete"))) return;
  if (!(await attempt(() => call("DELETE", `/api/chats/${item.id}`)))) return;
  acts.gone(item.id);
  load();
}

async function bring(event) {
  for (const file of event.target.files) {
    await attempt(async () => {
      const headers = { "Content-Type": "application/octet-stream", Accept: "application/json" };
      const answer = await fetch("/api/chats/import", { method: "POST", headers, body: file });
      const value = await answer.json().catch(() => null);
      if (!answer.ok) throw new Error(`${file.name}: ${value?.error?.message ?? `the dashboard answered ${answer.status}`}`);
      acts.open(value.id);
    });
  }
  event.target.value = "";
  load();
}

async function attempt(act) {
  try {
    await act();
    return true;
  } catch (error) {
    acts.say(error.message);
    return false;
  }
}
