// A run's events, each once and in order: by a stream, and by asking every few seconds while no stream can be had.
import { call } from "./api.js";
import { fresh, stale } from "./app.js";

const TYPES = ["metric", "status", "checkpoint", "warning", "log", "data", "trainable", "proof", "evaluation", "parity", "speed", "published"];
const PATIENCE = 4000; // milliseconds without a stream, then it is asked by page
const ASK = 3000;
const ASKS = 5; // pages, then a stream is tried again

// Calls take(event) for each event after byte `after`, and ended() when the run has ended.
export function follow(run, after, take, ended) {
  const events = `/api/runs/${run}/events`;
  let source = null, timer = 0, over = false;

  function stop() {
    source?.close();
    source = null;
    clearTimeout(timer);
  }
  function finish() {
    over = true;
    stop();
    ended();
  }
  function stream() {
    stop();
    if (over || document.hidden) return; // a browser has few connections: a tab that nobody sees gives its own back
    const own = (source = new EventSource(`${events}/stream?after=${after}`));
    const heard = (message) => {
      after = Number(message.lastEventId);
      take(JSON.parse(message.data));
    };
    for (const type of TYPES) own.addEventListener(type, heard);
    own.addEventListener("end", finish);
    own.addEventListener("open", () => { clearTimeout(timer); timer = 0; fresh(); });
    own.addEventListener("error", (message) => {
      if (message.data !== undefined) heard(message); // the run's own event of the type `error`
      else if (own.readyState === EventSource.CLOSED) ask(ASKS);
      else timer ||= setTimeout(() => ask(ASKS), PATIENCE);
    });
    timer = setTimeout(() => ask(ASKS), PATIENCE);
  }
  async function ask(left) {
    stop();
    if (over || document.hidden) return;
    try {
      let page;
      do {
        page = await call("GET", `${events}?after=${after}`);
        if (source || over) return;
        for (const event of page.items) take(event);
        after = page.next;
      } while (page.items.length);
      fresh();
      if (page.ended) return finish();
      timer = setTimeout(() => (left ? ask(left - 1) : stream()), left ? ASK : 0);
    } catch (error) {
      if (error.status === 404) return stop();
      stale(error.message);
      timer = setTimeout(() => ask(0), ASK);
    }
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : stream()));
  stream();
}
