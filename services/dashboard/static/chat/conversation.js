// A conversation as data: a tree of messages, of which each column shows the line from the start to one of them.

// Not crypto.randomUUID: without https there is none.
export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(10)), (n) => n.toString(16).padStart(2, "0")).join("");

export class Conversation {
  constructor({ id = null, title = "", system = "", models = [], heads = [], messages = [], created = null } = {}) {
    Object.assign(this, { id, title, system, models, heads, created });
    this.messages = new Map(messages.map((message) => [message.id, message]));
  }

  add(message) {
    const whole = { id: newId(), parent: null, content: "", created: new Date().toISOString(), ...message };
    this.messages.set(whole.id, whole);
    return whole;
  }

  // The messages from the start to `head`.
  line(head) {
    const found = [];
    for (let message = this.messages.get(head); message; message = this.messages.get(message.parent)) found.push(message);
    return found.reverse();
  }

  children(id) {
    return [...this.messages.values()].filter((message) => (message.parent ?? null) === id);
  }

  // A message and what stands beside it: other wordings of a question, other answers to it.
  siblings(message) {
    return this.children(message.parent ?? null).filter(({ role }) => role === message.role);
  }

  // The newest end of what follows a message.
  tip(id) {
    const next = this.children(id).at(-1);
    return next ? this.tip(next.id) : id;
  }

  // Take a message away with all that follows it; the ids that are gone.
  remove(id) {
    const gone = [id, ...this.children(id).flatMap((child) => this.remove(child.id))];
    for (const each of gone) this.messages.delete(each);
    return gone;
  }

  // What another window has kept: new messages come in, those in `mine` stay as they are here. Whether anything is new.
  merge(value, mine) {
    let changed = value.title !== this.title || value.system !== this.system;
    Object.assign(this, { title: value.title, system: value.system ?? "" });
    const kept = new Set(value.messages.map(({ id }) => id));
    for (const message of value.messages) {
      if (mine.has(message.id)) continue;
      const known = this.messages.get(message.id);
      if (known && JSON.stringify(known) === JSON.stringify(message)) continue;
      this.messages.set(message.id, known ? Object.assign(known, message) : message);
      if (known) for (const key of Object.keys(known)) if (!(key in message)) delete known[key];
      changed = true;
    }
    for (const id of this.messages.keys()) {
      if (!kept.has(id) && !mine.has(id)) changed = this.messages.delete(id);
    }
    return changed;
  }
}

// A line as OpenAI's messages; answers that never came are left out.
export function prompt(line, system) {
  const said = line.filter(({ role, content }) => role === "user" || content);
  const messages = said.map(({ role, content, thinking }) => ({ role, content, ...(thinking && { reasoning_content: thinking }) }));
  return system.trim() ? [{ role: "system", content: system }, ...messages] : messages;
}

// A line as a row of a data set: each question with its answer. Null where there is none.
export function row(line, system, withThinking) {
  const messages = [];
  line.forEach((message, place) => {
    const answer = line[place + 1];
    if (message.role !== "user" || !answer?.content?.trim()) return;
    messages.push({ role: "user", content: message.content });
    messages.push({ role: "assistant", content: answer.content, ...(withThinking && answer.thinking && { thinking: answer.thinking }) });
  });
  if (!messages.length) return null;
  return system.trim() ? [{ role: "system", content: system }, ...messages] : messages;
}

// Broken off: neither at its end nor in error, because the page was closed while it came.
export const brokenOff = (message) => message.role === "assistant" && !message.finish && !message.error;
