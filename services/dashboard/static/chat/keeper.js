// Keeps a conversation in the data directory while it grows: what changed is sent at most once a second, and at once when
// the page goes. What could not be sent stays in this browser until it can.
import { call } from "../api.js";

const EVERY = 1000; // milliseconds
const KEEPALIVE = 60_000; // bytes; a browser sends no more than 64 KiB after its page has gone
const OUTBOX = "tandem-chat-outbox";

export class Keeper {
  // `told(error)` after each attempt, with null when all is kept; `named(id)` once the conversation has an address.
  constructor(conversation, { told = () => {}, named = () => {} } = {}) {
    Object.assign(this, { conversation, told, named });
    this.dirty = new Set();
    this.fields = new Set();
    this.removed = [];
    this.timer = null;
    this.sending = null;
    this.flying = null; // what is on its way, as long as it is not known to have arrived
    this.sent = 0; // requests so far: what was read before the last one does not have it
  }

  get waiting() {
    return this.dirty.size > 0 || this.fields.size > 0 || this.removed.length > 0;
  }

  touch(message) {
    this.dirty.add(message.id);
    this.fields.add("heads").add("models");
    this.later();
  }

  set(...names) {
    for (const name of names) this.fields.add(name);
    if (this.conversation.id) this.later();
  }

  remove(ids) {
    for (const id of ids) this.dirty.delete(id);
    this.removed.push(ids[0]);
    this.fields.add("heads");
    this.later();
  }

  later(delay = EVERY) {
    this.timer ??= setTimeout(() => this.flush(), delay);
  }

  // Send what changed. One request at a time: the first one gives the conversation its address.
  async flush() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.sending) return this.sending.then(() => this.waiting && this.flush());
    if (!this.waiting || (!this.conversation.id && !this.dirty.size)) return undefined;
    this.sending = this.send().finally(() => { this.sending = null; });
    return this.sending;
  }

  async send() {
    const body = this.take();
    const { conversation } = this;
    this.flying = body;
    this.sent += 1;
    try {
      if (conversation.id) await call("PATCH", `/api/chats/${conversation.id}`, body);
      else {
        const made = await call("POST", "/api/chats", body);
        Object.assign(conversation, { id: made.id, title: made.title, created: made.created });
        this.named(made.id);
      }
      this.told(null);
    } catch (error) {
      const lasting = error.status >= 400 && error.status < 500 && error.status !== 401 && error.status !== 429;
      if (!lasting) {
        this.putBack(body);
        this.later(4 * EVERY);
      }
      this.told(error);
    } finally {
      this.flying = null;
    }
  }

  take() {
    const { conversation } = this;
    const body = { messages: [...conversation.messages.values()].filter(({ id }) => this.dirty.has(id)) };
    for (const name of this.fields) body[name] = conversation[name];
    if (this.removed.length) body.removed = this.removed;
    if (!conversation.id) Object.assign(body, { title: conversation.title, system: conversation.system });
    this.dirty = new Set();
    this.fields = new Set();
    this.removed = [];
    return body;
  }

  putBack({ messages, removed = [], ...fields }) {
    for (const { id } of messages) if (this.conversation.messages.has(id)) this.dirty.add(id);
    for (const name of Object.keys(fields)) this.fields.add(name);
    this.removed.unshift(...removed);
  }

  // The page goes: no answer can be waited for.
  leave() {
    if (this.flying && this.conversation.id) this.putBack(this.flying); // twice is the same as once
    if (!this.waiting || (!this.conversation.id && !this.dirty.size)) return;
    const { id } = this.conversation;
    const body = this.take();
    if (new Blob([JSON.stringify(body)]).size > KEEPALIVE || !navigator.onLine) outbox([...outbox(), { id, body }]);
    else call(id ? "PATCH" : "POST", id ? `/api/chats/${id}` : "/api/chats", body, { keepalive: true }).catch(() => {});
  }
}

// What an earlier page could not send goes first. Waits for the answer, so that what is read next has it.
export async function deliver() {
  for (const [place, { id, body }] of outbox().entries()) {
    try {
      await call(id ? "PATCH" : "POST", id ? `/api/chats/${id}` : "/api/chats", body);
    } catch (error) {
      if (!error.status || error.status === 401 || error.status >= 500) return outbox(outbox().slice(place));
    }
  }
  return outbox([]);
}

function outbox(value) {
  try {
    if (value === undefined) return JSON.parse(localStorage.getItem(OUTBOX) ?? "[]");
    if (value.length) localStorage.setItem(OUTBOX, JSON.stringify(value));
    else localStorage.removeItem(OUTBOX);
  } catch { /* no room, or storage is switched off: the request was tried all the same */ }
  return value ?? [];
}
