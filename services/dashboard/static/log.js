// A run's log: read on while the run goes, searched, followed to its end, downloaded.
import { call } from "./api.js";
import { tell } from "./dom.js";
import { save } from "./curves.js";

const EVERY = 2000, PAGE = 1 << 20, KEPT = 1 << 20; // milliseconds, bytes, characters
const get = (id) => document.getElementById(id);

export class Log {
  constructor(run, live) {
    Object.assign(this, { url: `/api/runs/${run}/log`, run, live, text: "", next: null, box: get("log"), switch: get("log-follow") });
    get("log-search").addEventListener("input", () => this.#show());
    get("log-download").addEventListener("click", () => this.#download());
    this.box.addEventListener("scroll", () => { if (this.switch && !this.#atEnd()) this.switch.checked = false; });
    this.switch?.addEventListener("change", () => this.#toEnd());
    this.#read();
  }

  async #read() {
    clearTimeout(this.timer);
    if (!document.hidden) {
      try {
        const { text, next } = await call("GET", this.next === null ? this.url : `${this.url}?after=${this.next}`);
        this.next = next;
        if (text) {
          this.text = (this.text + text).slice(-KEPT);
          this.#show();
        }
      } catch { /* the next look tells more; that Tandem does not answer is said above */ }
    }
    if (this.live) this.timer = setTimeout(() => this.#read(), EVERY);
  }

  end() {
    this.live = false;
    this.#read();
  }

  // A progress bar that was drawn over itself is its last state.
  #show() {
    const lines = this.text.split("\n").map((line) => line.split("\r").filter(Boolean).pop() ?? "");
    const words = get("log-search").value.trim().toLowerCase();
    const found = words ? lines.filter((line) => line.toLowerCase().includes(words)) : lines;
    get("log-found").textContent = words ? `${found.length.toLocaleString("en")} of ${lines.length.toLocaleString("en")} lines` : "";
    this.box.textContent = found.join("\n") || (words ? "No line has these words." : "Nothing yet.");
    if (!this.switch || this.switch.checked) this.#toEnd();
  }

  #atEnd() {
    return this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 12;
  }

  #toEnd() {
    if (!this.switch || this.switch.checked) this.box.scrollTop = this.box.scrollHeight;
  }

  async #download() {
    try {
      const parts = [];
      for (let after = 0; ;) {
        const { text, next } = await call("GET", `${this.url}?after=${after}&limit=${PAGE}`);
        if (!text) break;
        parts.push(text);
        after = next;
      }
      save(new Blob(parts, { type: "text/plain" }), `${this.run}.txt`);
    } catch (error) {
      tell(error.message);
    }
  }
}
