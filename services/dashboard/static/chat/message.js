// One message as it stands on the page: its words, its thinking, what went wrong, and what can be done with it.
import { showTokens } from "./channels.js";
import { brokenOff } from "./conversation.js";
import { button, copy, el } from "../dom.js";
import { remember, remembered } from "./memory.js";
import { edit } from "./edit.js";
import { facts } from "./facts.js";
import { Flow } from "./markdown.js";

const REST = 4; // a long answer is drawn again after this many times as long as drawing took
const solid = (text, onclick) => button(text, onclick, { className: "" });

export class View {
  // `acts` does what the buttons say; see page.js.
  constructor(session, column, message, acts) {
    Object.assign(this, { session, column, message, acts, next: 0, timer: null });
    this.heading = el("h2.unseen");
    this.text = el("div.text");
    this.note = el("div.note", { hidden: true });
    this.facts = el("span.facts");
    this.buttons = el("span.acts");
    this.element = el(`article.message.${message.role}.c${column + 1}`, {}, this.heading);
    if (message.role === "assistant") {
      this.flow = new Flow(this.text);
      this.element.append(this.thinking());
    }
    this.element.append(this.text, this.note, el("footer", {}, this.facts, this.buttons));
    this.text.addEventListener("click", (event) => {
      if (!event.target.matches("[data-code]")) return;
      copy(event.target.closest(".code").querySelector("code").textContent, event.target);
    });
    this.update();
  }

  get running() {
    return this.session.running.has(this.message.id);
  }

  thinking() {
    const { content, finish } = this.message;
    const open = !content && !finish && remembered().thinking === true;
    this.thought = el("div.thought");
    this.summary = el("summary");
    this.fold = el("details.thinking", { hidden: true, open }, this.summary, this.thought);
    this.summary.addEventListener("click", () => remember({ thinking: !this.fold.open }));
    return this.fold;
  }

  // More has come: drawn with the next frame, and not so often that the page has time for nothing else.
  grow(drawn) {
    if (this.timer) return;
    this.timer = setTimeout(() => requestAnimationFrame(() => {
      this.timer = null;
      const began = performance.now();
      this.words();
      this.next = performance.now() + REST * (performance.now() - began);
      drawn();
    }), Math.max(0, this.next - performance.now()));
  }

  update() {
    const { role, model = "The model", corrected } = this.message;
    this.words();
    this.note.replaceChildren(...this.trouble());
    this.note.hidden = !this.note.childNodes.length;
    this.facts.replaceChildren(...(this.running ? [] : facts(this.message)));
    this.buttons.replaceChildren(...this.offers());
    this.element.setAttribute("aria-busy", this.running);
    this.heading.textContent = role === "user" ? "You asked" : `${model} ${corrected ? "answered, corrected" : "answered"}`;
  }

  words() {
    const { message, running } = this;
    if (message.role === "user") {
      if (this.text.textContent !== message.content) this.text.textContent = message.content;
      return;
    }
    this.flow.update(message.content, !running);
    this.text.classList.toggle("waiting", running && !message.content);
    const { thinking, thinking_seconds: seconds } = message;
    this.fold.hidden = !thinking;
    const shown = this.thought.textContent;
    if (thinking?.startsWith(shown)) this.thought.append(thinking.slice(shown.length));
    else this.thought.textContent = thinking ?? "";
    const said = running && !message.content ? "Thinking…" : seconds ? `Thought for ${seconds.toFixed(1)} s` : "Thought";
    if (this.summary.textContent !== said) this.summary.textContent = said;
  }

  // What went wrong, and the way out.
  trouble() {
    const { message, session, column, acts, running } = this;
    if (message.role === "user" || running) return [];
    if (acts.elsewhere(message)) return [el("p", {}, "This is being answered in another window.")];
    const begun = message.content || message.thinking;
    const goOn = begun ? solid("Go on", () => session.goOn(column, message)) : null;
    const again = solid(begun ? "Answer again" : "Try again", () => acts.again(column, message));
    const fresh = session.help.get(message.id) === "long" ? solid("New chat", acts.fresh) : null;
    const note = (text, ...ways) => [el("p", {}, text), el("div.row", {}, ...ways)];
    if (message.error) return note(message.error, goOn, again, fresh);
    if (brokenOff(message)) return note("This answer was broken off: its page was closed or reloaded.", goOn, again);
    if (message.finish === "stopped") return note("Stopped.", goOn, again);
    if (message.finish === "length") return note("The answer ends here because it reached the most tokens allowed.", goOn);
    return message.content ? [] : note("The model said nothing.", again);
  }

  offers() {
    const { message, acts, running } = this;
    if (running) return this.branches();
    const user = message.role === "user";
    const copying = (event) => copy(message.content, event.target);
    return [
      ...this.branches(),
      message.content ? button("Copy", copying, { title: user ? "Copy the question" : "Copy the answer as Markdown" }) : null,
      user ? button("Edit", () => edit(this), { title: "Ask it differently, on a branch of its own" }) : null,
      ...(!user && message.content ? this.ofAnswer() : []),
      button("Delete", () => acts.remove(message), { title: "Delete from here on" }),
    ].filter(Boolean);
  }

  ofAnswer() {
    const { message, acts, column } = this;
    const tokens = button("Tokens", () => showTokens(this.element, message, tokens), {
      "aria-expanded": String(Boolean(this.element.querySelector(".tokens"))),
      title: "The raw tokens, with their ids and channels",
    });
    return [
      button("Again", () => acts.again(column, message), { title: "Answer again, on a branch of its own" }),
      this.others(),
      button("Correct", () => edit(this), { title: "Put the answer right; the original stays on its branch" }),
      button("Keep", () => acts.keep(column, message), { title: "Keep the conversation up to here as a row of a data set" }),
      message.token_ids?.length ? tokens : null,
    ];
  }

  others() {
    const models = this.acts.models();
    const label = "Answer again with another model";
    const choose = () => this.acts.again(this.column, this.message, select.value);
    const options = models.map((name) => el("option", { value: name }, name));
    const select = el("select", { "aria-label": label, title: label, onchange: choose }, el("option", { value: "" }, "with…"), ...options);
    return models.length > 1 ? select : null;
  }

  branches() {
    const siblings = this.session.conversation.siblings(this.message);
    if (siblings.length < 2) return [];
    const place = siblings.indexOf(this.message);
    const go = (step, label, sign) => button(sign, () => this.acts.turn(this.column, siblings[place + step], label), {
      "aria-label": label,
      disabled: !siblings[place + step],
    });
    const number = el("span.n", {}, `${place + 1} / ${siblings.length}`);
    return [el("span.branches", {}, go(-1, "The one before", "‹"), number, go(1, "The one after", "›"))];
  }
}
