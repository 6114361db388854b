// Curves of several runs over each other; those that still run are read again from time to time.
import { Curves } from "./curves.js";

const EVERY = 4000;
const curves = new Curves();

async function load() {
  const done = document.hidden || (await curves.load());
  if (!done || "live" in document.getElementById("curves").dataset) setTimeout(load, EVERY);
}
load();
