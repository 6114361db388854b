// One run as it happens: its curve and its log; what stands above and below them is refreshed by htmx.
import { refresh } from "./app.js";
import { Curves } from "./curves.js";
import { follow } from "./events.js";
import { Log } from "./log.js";

const page = document.getElementById("main");
const { run, after } = page.dataset;
const live = !("ended" in page.dataset);
const log = new Log(run, live);
const curves = document.getElementById("curves") ? new Curves() : null;
const AGAIN = 3000;

async function load() {
  if (curves && !(await curves.load())) setTimeout(load, AGAIN);
}
load();

function take(event) {
  if (event.type === "metric") {
    curves?.own[0].take(event);
    curves?.draw();
    return;
  }
  if (event.type === "status" && event.step && !curves?.own[0].resumed.includes(event.step)) curves?.own[0].resumed.push(event.step);
  if (["status", "warning", "error", "checkpoint", "speed"].includes(event.type)) refresh();
}

// Resumed in another tab: this one begins again.
document.body.addEventListener("htmx:afterSettle", () => {
  if (!live && "active" in document.getElementById("top").dataset) location.reload();
});
if (live) follow(run, Number(after), take, () => { log.end(); refresh(); });
