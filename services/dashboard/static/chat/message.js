// One message as it stands on the page: its words, its thinking, what answered, and what can be done with it.
import { showTokens } from "./channels.js";
import { brokenOff } from "./conversation.js";
import { button, copy, el, remember, remembered } from "./dom.js";
import { Flow } from "./markdown.js";

const REST = 4; // a long answer is drawn again after this many times as long as drawing took

export class View {
  // `acts` does what the buttons say; see page.js.
  constructor(session, column, message, acts) {
    Object.assign(this, { session, column, message, acts, next: 0, timer: null });
    this.text = el("div.text");
    this.note = el("div.note", { hidden: true });
    this.facts = el("span.facts");
    this.buttons = el("span.acts");
    this.element = el(`article.message.${message.role}.c${column + 1}`, { id: `m-${column}-${message.id}` }, el("h2.unseen"));
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
    this.thought = el("div.thought");
    this.summary = el("summary");
    this.fold = el("details.thinking", { hidden: true, open: !this.message.content && !this.message.finish && remembered().thinking === true }, this.summary, this.thought);
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
    this.words();
    this.note.replaceChildren(...this.trouble());
    this.note.hidden = !this.note.childNodes.length;
    this.facts.replaceChildren(...this.about());
    this.buttons.replaceChildren(...this.offers());
    this.element.setAttribute("aria-busy", this.running);
    const { role, model, corrected } = this.message;
    this.element.querySelector("h2").textContent = role === "user" ? "You asked" : corrected ? `A corrected answer of ${model}` : `${model} answered`;
  }

  words() {
    const { message, running } = this;
    if (message.role === "user") {
      if (this.text.textContent !== message.content) this.text.textContent = message.content;
      return;
    }
    this.flow.update(message.content, !running);
    this.text.classList.toggle("waiting", running && !message.content);
    const { thinking = "" } = message;
    this.fold.hidden = !thinking;
    const shown = this.thought.textContent;
    if (thinking.startsWith(shown)) this.thought.append(thinking.slice(shown.length));
    else this.thought.textContent = thinking;
    const on = running && !message.content;
    const seconds = message.thinking_seconds;
    const said = on ? "Thinking…" : seconds ? `Thought for ${seconds.toFixed(1)} s` : "Thought";
    if (this.summary.textContent !== said) this.summary.textContent = said;
  }

  // What went wrong, and the way out.
  trouble() {
    const { message, session, column, acts, running } = this;
    if (message.role === "user" || running) return [];
    if (acts.elsewhere(message)) return [el("p", {}, "This is being answered in another window.")];
    const goOn = message.content || message.thinking ? [button("Go on", () => session.goOn(column, message), { className: "" })] : [];
    const again = button(message.content || message.thinking ? "Answer again" : "Try again", () => acts.again(column, message), { className: "" });
    if (message.error) {
      const fresh = session.help.get(message.id) === "long" ? [button("New chat", acts.fresh, { className: "" })] : [];
      return [el("p", {}, message.error), el("div.row", {}, ...goOn, again, ...fresh)];
    }
    if (brokenOff(message)) return [el("p", {}, "This answer was broken off: its page was closed or reloaded."), el("div.row", {}, ...goOn, again)];
    if (message.finish === "stopped") return [el("p", {}, "Stopped."), el("div.row", {}, ...goOn, again)];
    if (message.finish === "length") return [el("p", {}, "The answer ends here because it reached the most tokens allowed."), el("div.row", {}, ...goOn)];
    return message.content || !message.thinking ? [] : [el("p", {}, "The model thought and then said nothing."), el("div.row", {}, again)];
  }

  // Quietly: which weights answered, how fast, and with how many tokens.
  about() {
    const { message } = this;
    if (message.role === "user" || this.running) return [];
    const { model, answered_by: by, sha256, usage, tokens_per_second: speed, first_seconds: first, effort } = message;
    const name = by && by !== model ? `${model} (${by})` : (model ?? "");
    const hash = sha256 ? el("abbr.mono", { title: `SHA-256 of the weights that answered: ${sha256}` }, sha256.slice(0, 8)) : null;
    const tokens = usage ? el("span", { title: "Tokens of the prompt, and of the answer with its thinking" }, `${usage.prompt_tokens} + ${usage.completion_tokens} tokens`) : null;
    const facts = [
      message.corrected ? el("strong", {}, "Corrected") : null,
      name ? el("span", {}, name) : null,
      hash,
      effort && effort !== "medium" ? el("span", {}, `${effort} effort`) : null,
      message.corrected ? null : tokens,
      speed ? el("span", { title: "Tokens a second" }, `${speed.toFixed(0)}/s`) : null,
      first ? el("span", { title: "Time until the first token" }, `first ${first.toFixed(2)} s`) : null,
      message.finish && !["stop", "stopped", "length"].includes(message.finish) ? el("span", {}, `ended with ${message.finish}`) : null,
    ];
    return facts.filter(Boolean);
  }

  offers() {
    const { message, acts, column, running } = this;
    const offers = [...this.branches()];
    if (running) return offers;
    if (message.content) offers.push(button("Copy", (event) => copy(message.content, event.target), { title: message.role === "user" ? "Copy the question" : "Copy the answer as Markdown" }));
    if (message.role === "user") offers.push(button("Edit", () => this.edit(), { title: "Ask it differently, on a branch of its own" }));
    else offers.push(...this.ofAnswer());
    offers.push(button("Delete", () => acts.remove(message), { title: "Delete from here on" }));
    return offers.filter((offer) => offer && (message.content || message.role === "user" || offer.textContent === "Delete" || offer.matches(".branches")));
  }

  ofAnswer() {
    const { message, acts, column } = this;
    const models = acts.models().map((name) => el("option", { value: name }, name));
    const other = el("select.plain", { "aria-label": "Answer again with another model", title: "Answer again with another model", onchange: () => acts.again(column, message, other.value) },
      el("option", { value: "" }, "with…"), ...models);
    const tokens = message.token_ids?.length
      ? button("Tokens", () => showTokens(this.element, message, tokens), { "aria-expanded": "false", title: "The raw tokens, with their ids and channels" })
      : null;
    return [
      button("Again", () => acts.again(column, message), { title: "Answer again, on a branch of its own" }),
      models.length > 1 ? other : null,
      button("Correct", () => this.edit(), { title: "Put the answer right; the original stays on its branch" }),
      button("Keep", () => acts.keep(column, message), { title: "Keep the conversation up to here as a row of a data set" }),
      tokens,
    ];
  }

  branches() {
    const siblings = this.session.conversation.siblings(this.message);
    if (siblings.length < 2) return [];
    const place = siblings.indexOf(this.message);
    const go = (step, label, sign) => button(sign, () => this.acts.turn(this.column, siblings[place + step], label), { "aria-label": label, disabled: !siblings[place + step] });
    return [el("span.branches", {}, go(-1, "The one before", "‹"), el("span.n", {}, `${place + 1} / ${siblings.length}`), go(1, "The one after", "›"))];
  }

  // The words become a field: of a question to ask it anew, of an answer to put it right.
  edit() {
    if (this.element.querySelector("form")) return;
    const { message, column, acts, session } = this;
    const question = message.role === "user";
    const field = el("textarea", { value: message.content, "aria-label": question ? "The question" : "The answer, as Markdown", required: true });
    const done = () => { form.remove(); this.element.classList.remove("edited"); acts.focus(); };
    const form = el("form", {
      onsubmit: (event) => {
        event.preventDefault();
        const text = field.value.trim();
        if (!text) return;
        done();
        if (question) acts.edit(column, message, text);
        else if (text !== message.content) session.correct(column, message, text);
      },
      onkeydown: (event) => {
        if (event.key === "Escape") { event.stopPropagation(); done(); }
        if (event.key === "Enter" && !event.isComposing && (question ? !event.shiftKey : event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
      },
    }, field, el("div.row", {}, el("button.main", {}, question ? "Ask" : "Save"), button("Cancel", done, { className: "" }),
      el("small.quiet", {}, question ? "The old question stays on its branch." : "The original stays on its branch. Ctrl+Enter saves.")));
    this.text.after(form);
    this.element.classList.add("edited");
    const fit = () => { field.style.height = "auto"; field.style.height = `${field.scrollHeight + 2}px`; };
    field.oninput = fit;
    fit();
    field.focus();
  }
}
