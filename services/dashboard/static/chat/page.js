// The chat page: conversations are opened and shown here; answers go on coming in while another one is read.
import { call } from "../api.js";
import * as composer from "./composer.js";
import { confirmed } from "../dom.js";
import { remember, remembered } from "./memory.js";
import { edit } from "./edit.js";
import * as keep from "./keep.js";
import { deliver } from "./keeper.js";
import { View } from "./message.js";
import * as options from "./options.js";
import { scroller } from "./scroll.js";
import { Session } from "./session.js";
import * as sidebar from "./sidebar.js";

const ANSWERING = 4000; // milliseconds for which another window's word that it is answering holds
const $ = (id) => document.getElementById(id);
const sessions = new Map(); // id -> Session, those that were opened
const elsewhere = new Map(); // message id -> when another window last said that it is answering it
const others = new BroadcastChannel("tandem-chats");
const query = new URLSearchParams(location.search);
const follow = scroller($("talk"), $("to-end"));
let session = null;
let views = new Map();

// ---- what a message's buttons do

const acts = {
  again: (column, message, model) => session.again(column, message, options.chosen(), model || undefined),
  edit(column, message, text) {
    // beside each other, both columns asked the same: both ask the new wording
    const place = session.line(column).indexOf(message);
    const twins = [...session.columns.keys()].filter((each) => {
      const twin = session.line(each)[place];
      return twin?.role === "user" && twin.content === message.content;
    });
    const parents = Object.fromEntries(twins.map((each) => [each, session.line(each)[place].parent ?? null]));
    session.ask(text, options.chosen(), twins, parents);
    follow.end();
  },
  turn(column, message, label) {
    session.turn(column, message);
    views.get(`${column} ${message.id}`)?.element.querySelector(`[aria-label="${label}"]`)?.focus();
  },
  async remove(message) {
    const after = session.conversation.children(message.id).length ? " and everything that follows it" : "";
    const what = message.role === "user" ? "this question" : "this answer";
    if (await confirmed(`Delete ${what}${after}? It cannot be brought back.`, "Delete")) session.remove(message);
    acts.focus();
  },
  keep: (column, message) => keep.offer(session.conversation.line(message.id), session.conversation.system),
  models: options.names,
  elsewhere: ({ id }) => Date.now() - (elsewhere.get(id) ?? 0) < ANSWERING,
  focus: () => $("text").focus(),
  fresh: () => openChat(null),
};

// ---- drawing

function draw() {
  const { conversation, columns } = session;
  const lines = columns.map((_, column) => session.line(column));
  const wanted = [];
  for (let place = 0; place < Math.max(...lines.map(({ length }) => length)); place += 1) {
    lines.forEach((line, column) => line[place] && wanted.push([column, line[place]]));
  }
  const before = views;
  views = new Map(wanted.map(([column, message]) => {
    const key = `${column} ${message.id}`;
    const known = before.get(key);
    if (known?.message === message) known.update();
    return [key, known?.message === message ? known : new View(session, column, message, acts)];
  }));
  arrange([...views.values()].map(({ element }) => element));
  for (const view of views.values()) {
    const twin = view.column && lines[0][lines[1].indexOf(view.message)];
    view.element.classList.toggle("last", view.message === lines[view.column].at(-1));
    view.element.classList.toggle("twin", Boolean(twin) && twin.role === "user" && twin.content === view.message.content);
  }
  $("talk").classList.toggle("two", columns.length > 1);
  $("hello").hidden = wanted.length > 0;
  $("chat-title").textContent = conversation.title || "New chat";
  document.title = `${conversation.title || "Chat"} · Tandem`;
  $("chat-menu").hidden = !conversation.id;
  $("chat-keep").hidden = !wanted.length || columns.length > 1; // each answer has its own
  bar();
  follow.on();
}

// Put the elements in order; those that stand right are not touched, so that focus and selection stay.
function arrange(elements) {
  const kept = new Set(elements);
  for (const child of [...$("messages").children]) if (!kept.has(child)) child.remove();
  elements.forEach((element, place) => {
    if ($("messages").children[place] !== element) $("messages").insertBefore(element, $("messages").children[place] ?? null);
  });
}

function bar() {
  const { columns } = session;
  options.fill($("model"), columns[0].model);
  $("beside-label").hidden = columns.length < 2;
  if (columns.length > 1) options.fill($("beside"), columns[1].model);
  $("side-by-side").hidden = columns.length > 1 || options.names().length < 2;
  if ($("system") !== document.activeElement) $("system").value = session.conversation.system;
  options.mark();
  composer.running(session.running.size > 0);
}

function say(text) {
  $("said").textContent = text;
  $("said").hidden = !text;
}

const tell = (text) => { $("live").textContent = text; };

// ---- what a conversation reports

function changed(which, message, what) {
  const shown = which === session;
  if (what === "named") {
    sessions.set(which.conversation.id, which);
    if (shown) {
      history.replaceState(null, "", `/chat/${which.conversation.id}`);
      composer.moved(which.conversation.id);
      draw();
    }
    sidebar.load(session.conversation.id);
  }
  if (what === "kept") kept(which);
  if (what === "end") ended(which, message);
  if (!shown) return;
  if (what === "lines" || what === "begin" || what === "end") draw();
  if (what === "begin") tell(`${message.model} is answering.`);
  if (what === "text") for (const view of viewsOf(message)) view.grow(follow.on);
}

const viewsOf = (message) => [...views.values()].filter((view) => view.message === message);

function kept(which) {
  const { trouble, conversation } = which;
  if (which === session) say(trouble ? `Not kept yet: ${trouble.message}` : "");
  if (!trouble) others.postMessage({ chat: conversation.id, running: [...which.running.keys()] });
}

function ended(which, message) {
  if (which === session) {
    const words = message.error ?? viewsOf(message)[0]?.text.textContent.trim().slice(0, 400) ?? "";
    tell(message.error ? `No answer: ${words}` : `${message.model} answered: ${words}`);
  }
  sidebar.load();
}

// ---- opening

async function openChat(id, push = true) {
  say("");
  if (session && !session.conversation.id && !session.conversation.messages.size) session = null;
  let next = sessions.get(id);
  if (!next && id) {
    try {
      const value = await call("GET", `/api/chats/${id}`);
      next = new Session(value, value.models?.length ? value.models : [options.usual()], changed);
      sessions.set(id, next);
    } catch (error) {
      if (!session) next = blank();
      say(error.message);
      if (!next) return;
      id = null;
    }
  }
  session = next ?? blank();
  if (push) history.pushState(null, "", id ? `/chat/${id}` : "/chat");
  views = new Map();
  composer.draft(id);
  draw();
  if (views.size) follow.end();
  else follow.start();
  sidebar.fold();
  sidebar.load(id);
  if (id && sessions.get(id) === session && !session.running.size) refresh();
  if (!matchMedia("(hover: none)").matches) $("text").focus();
}

function blank() {
  const models = [query.get("model") ?? options.usual(), query.get("beside")].filter(Boolean);
  for (const name of ["model", "beside"]) query.delete(name);
  return new Session({ system: remembered().system ?? "" }, models, changed);
}

// Take in what other windows have kept meanwhile.
async function refresh() {
  const which = session;
  if (!which?.conversation.id) return;
  let value = null;
  for (let sent = null; sent !== which.keeper.sent || which.keeper.flying;) {
    sent = which.keeper.sent;
    await which.keeper.sending;
    value = await call("GET", `/api/chats/${which.conversation.id}`).catch((error) => error);
  }
  if (value.messages) which.merge(value);
  else if (value.status === 404 && which === session) say("This conversation has been deleted in another window. It is not kept any more.");
}

others.onmessage = ({ data }) => {
  for (const id of data.running) elsewhere.set(id, Date.now());
  if (data.chat === session?.conversation.id) refresh().then(() => {
    draw();
    if (data.running.length) setTimeout(draw, ANSWERING + 500); // that window may be closed meanwhile
  });
  else if (!document.hidden) sidebar.load();
};
addEventListener("popstate", () => openChat(location.pathname.split("/")[2] || null, false));
addEventListener("pagehide", () => { for (const each of new Set([session, ...sessions.values()])) each?.keeper.leave(); });
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // its streams have ended meanwhile
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  refresh();
  sidebar.load();
});

// ---- the controls around the talk

$("model").addEventListener("change", () => pick(0, $("model").value));
$("beside").addEventListener("change", () => pick(1, $("beside").value));
function pick(column, model) {
  session.columns[column].model = model;
  remember({ models: session.columns.map((each) => each.model) });
  session.settle();
}
$("side-by-side").addEventListener("click", () => { session.beside(options.other(session.columns[0].model)); $("beside").focus(); });
$("beside-close").addEventListener("click", () => { session.beside(null); $("side-by-side").focus(); });
$("new-chat").addEventListener("click", () => openChat(null));
$("chat-menu").addEventListener("click", () => {
  const { id, title } = session.conversation;
  sidebar.menu({ id, title }, $("chat-menu"));
});
$("chat-keep").addEventListener("click", () => keep.offer(session.line(0), session.conversation.system));
$("system").addEventListener("change", () => {
  session.conversation.system = $("system").value;
  session.keeper.set("system");
  options.mark();
});
$("system-usual").addEventListener("click", () => {
  remember({ system: $("system").value });
  $("system-usual").textContent = "Remembered";
  setTimeout(() => { $("system-usual").textContent = "Use it for new chats"; }, 1500);
});
for (const control of document.querySelectorAll("[data-question]")) {
  control.addEventListener("click", () => {
    session.columns[0].model = control.getAttribute("data-model");
    session.settle();
    composer.put(control.getAttribute("data-question"));
    $("text").focus();
  });
}

composer.start({
  running: () => session?.running.size > 0,
  stop: () => session.stop(),
  fresh: () => openChat(null),
  send(text) {
    if (!session) ready.then(() => $("ask").requestSubmit());
    if (!session || session.columns.some(({ model }) => !model)) return false;
    session.ask(text, options.chosen());
    follow.end();
    return true;
  },
  editLast() {
    const last = session?.line(0).findLast(({ role }) => role === "user");
    if (last) edit(views.get(`0 ${last.id}`));
    return Boolean(last);
  },
});
sidebar.start({
  open: openChat,
  say,
  running: (id) => (sessions.get(id)?.running.size ?? 0) > 0,
  gone(id) {
    sessions.get(id)?.stop();
    sessions.delete(id);
    if (session.conversation.id === id) openChat(null);
  },
  renamed(id, title) {
    const known = sessions.get(id);
    if (known) known.conversation.title = title;
    if (known === session) draw();
  },
});
options.start();
keep.start();

const arrived = () => options.load((none) => {
  $("no-model").hidden = !none;
  $("no-model").firstElementChild.textContent = none ?? "";
  if (!session) return;
  for (const column of session.columns) column.model ||= options.usual();
  draw();
});
// A server that does not answer keeps nobody from reading what has been said.
const ready = Promise.all([deliver(), Promise.race([arrived(), new Promise((resolve) => { setTimeout(resolve, 700); })])])
  .then(() => openChat($("main").getAttribute("data-chat") || null, false))
  .then(() => $("main").setAttribute("data-ready", ""));
