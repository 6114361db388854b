// A conversation that is open: its columns, each with a model and a line of its own, and the answers that are coming in.
import { Conversation, prompt } from "./conversation.js";
import { Keeper } from "./keeper.js";
import { answer } from "./stream.js";

const MOST_IDS = 8000; // token ids kept with a message

const STAY = 3000; // milliseconds

let leaving = false; // then a stream ends because its page does, which is no error of the answer
addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => { leaving = false; }, STAY); // the person may have stayed
});

export class Session {
  // `changed(session, message, what)`: "lines" for another shape, "text" for more of a message, "end" when it is whole,
  // "kept" for a change of `trouble`, "named" when it got its address.
  constructor(value, models, changed) {
    this.conversation = new Conversation(value);
    const { heads, models: known } = this.conversation;
    const count = Math.max(models.length, 1);
    this.columns = Array.from({ length: count }, (_, place) => ({
      model: models[place] ?? known[place] ?? "",
      head: heads[place] ?? heads[0] ?? null,
    }));
    this.changed = (message, what) => changed(this, message, what);
    this.running = new Map(); // message id -> AbortController
    this.help = new Map(); // message id -> what helps against its error
    this.uncounted = new Set(); // messages with more token ids than are kept
    this.trouble = null; // why the last change is not kept
    this.keeper = new Keeper(this.conversation, {
      told: (error) => { this.trouble = error; this.changed(null, "kept"); },
      named: () => this.changed(null, "named"),
    });
  }

  line(column) {
    return this.conversation.line(this.columns[column].head);
  }

  // The columns have changed: remember it with the conversation.
  settle() {
    this.conversation.heads = this.columns.map(({ head }) => head);
    this.conversation.models = this.columns.map(({ model }) => model);
    this.keeper.set("heads", "models");
    this.changed(null, "lines");
  }

  beside(model) {
    this.columns = [this.columns[0], ...(model === null ? [] : [{ model, head: this.columns[0].head }])];
    this.settle();
  }

  // Ask in every column; columns at the same place share the question.
  ask(content, options, columns = this.columns.keys(), parents = null) {
    const asked = new Map();
    const begun = [...columns].map((column) => {
      const parent = parents ? parents[column] : this.columns[column].head;
      if (!asked.has(parent)) asked.set(parent, this.conversation.add({ role: "user", parent, content }));
      const question = asked.get(parent);
      this.keeper.touch(question);
      return [column, this.begin(column, question.id, options)];
    });
    this.settle();
    for (const [column, message] of begun) this.run(column, message);
  }

  // Answer a question again, on a branch of its own; what never got a word is replaced.
  again(column, message, options, model) {
    if (model) this.columns[column].model = model;
    if (message.content || message.thinking) message = this.begin(column, message.parent, options);
    else {
      Object.assign(message, { model: this.columns[column].model, ...options, error: null, finish: null, sha256: null });
      Object.assign(message, { first_seconds: null, seconds: null, token_ids: null, prompt_token_ids: null });
      this.columns[column].head = message.id;
    }
    this.settle();
    this.run(column, message);
  }

  begin(column, parent, options) {
    const { model } = this.columns[column];
    const message = this.conversation.add({ role: "assistant", parent, model, ...options });
    this.columns[column].head = message.id;
    return message;
  }

  // Let the model go on with an answer that was broken off, stopped or cut at the limit.
  goOn(column, message) {
    Object.assign(message, { error: null, finish: null });
    this.changed(null, "lines");
    this.run(column, message, true);
  }

  async run(column, message, more = false) {
    const stopping = new AbortController();
    this.running.set(message.id, stopping);
    this.keeper.touch(message);
    this.keeper.flush();
    this.changed(message, "begin");
    const tokens = more ? (message.usage?.completion_tokens ?? message.token_ids?.length ?? 0) : 0;
    const before = { seconds: message.seconds ?? 0, tokens };
    const began = performance.now();
    try {
      for await (const part of answer(this.request(message, more), stopping.signal)) {
        this.take(message, part, (performance.now() - began) / 1000, before, more);
      }
    } catch (error) {
      if (leaving) await new Promise((resolve) => { setTimeout(resolve, STAY); });
      if (error.name === "AbortError") message.finish = "stopped";
      else {
        message.error = error.message;
        this.help.set(message.id, error.kind);
      }
    }
    this.running.delete(message.id);
    message.seconds = round(before.seconds + (performance.now() - began) / 1000);
    if (message.thinking) message.thinking_seconds ??= round(message.seconds - (message.first_seconds ?? 0));
    this.keeper.touch(message);
    this.keeper.flush();
    this.changed(message, "end");
  }

  request(message, more) {
    const { sampling = {}, effort, model } = message;
    const messages = prompt(this.conversation.line(message.parent), this.conversation.system);
    if (more) messages.push({ role: "assistant", content: message.content, reasoning_content: message.thinking });
    return { model, messages, reasoning_effort: effort, ...sampling, ...(more && { continue_final_message: true }) };
  }

  take(message, part, seconds, before, more) {
    if (part.by) Object.assign(message, { answered_by: part.by.name, sha256: part.by.sha256 });
    if (part.thinking || part.content) message.first_seconds ??= round(seconds);
    if (part.thinking) message.thinking = (message.thinking ?? "") + part.thinking;
    if (part.content) {
      if (message.thinking) message.thinking_seconds ??= round(seconds - message.first_seconds);
      message.content += part.content;
    }
    if (part.promptIds || part.ids) this.takeIds(message, part, more);
    if (part.finish) message.finish = part.finish;
    if (part.timings) message.tokens_per_second = part.timings.predicted_per_second ?? null;
    if (part.usage) message.usage = usage(part.usage, before.tokens);
    this.keeper.touch(message);
    this.changed(message, "text");
  }

  takeIds(message, { promptIds = [], ids = [] }, more) {
    if (more && message.content && !message.token_ids) this.uncounted.add(message.id);
    if (this.uncounted.has(message.id)) return;
    if (promptIds.length && !more) message.prompt_token_ids = promptIds;
    (message.token_ids ??= []).push(...ids);
    if (message.token_ids.length + (message.prompt_token_ids?.length ?? 0) <= MOST_IDS) return;
    this.uncounted.add(message.id);
    Object.assign(message, { token_ids: null, prompt_token_ids: null });
  }

  stop() {
    for (const stopping of this.running.values()) stopping.abort();
  }

  // What a person made of an answer, kept beside it.
  correct(column, message, content) {
    const { parent, thinking, model, answered_by, sha256, effort } = message;
    const same = { role: "assistant", parent, thinking, model, answered_by, sha256, effort };
    const better = this.conversation.add({ ...same, content, finish: "stop", corrected: message.id });
    this.columns[column].head = better.id;
    this.keeper.touch(better);
    this.settle();
  }

  // Show the branch on which `message` stands.
  turn(column, message) {
    this.columns[column].head = this.conversation.tip(message.id);
    this.settle();
  }

  remove(message) {
    const other = this.conversation.siblings(message).filter(({ id }) => id !== message.id).at(-1);
    const gone = this.conversation.remove(message.id);
    for (const id of gone) this.running.get(id)?.abort();
    for (const column of this.columns) {
      if (gone.includes(column.head)) column.head = other ? this.conversation.tip(other.id) : (message.parent ?? null);
    }
    this.keeper.remove(gone);
    this.settle();
  }

  // Another window has changed the conversation. A column moves on only if what it shows has grown longer there.
  merge(value) {
    const mine = new Set([...this.running.keys(), ...this.keeper.dirty]);
    const changed = this.conversation.merge(value, mine);
    for (const [place, column] of this.columns.entries()) {
      const theirs = value.heads[place];
      if (!this.conversation.messages.has(column.head)) column.head = theirs ?? null;
      else if (this.conversation.line(theirs).some(({ id }) => id === column.head)) column.head = theirs;
    }
    if (changed) this.changed(null, "lines");
  }
}

const round = (seconds) => Math.round(seconds * 1000) / 1000;
const usage = ({ prompt_tokens, completion_tokens, total_tokens }, before) => ({
  prompt_tokens: prompt_tokens - before,
  completion_tokens: completion_tokens + before,
  total_tokens,
});
