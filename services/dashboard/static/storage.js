// Deleting several things at once: each by its own request, one after the other, and what could not be deleted is said.
import { refresh } from "./app.js";
import { confirmed } from "./dom.js";
import { bytes, call } from "./api.js";

const boxes = () => [...document.querySelectorAll("input[name=item]")];
const selected = () => boxes().filter((box) => box.checked);
const size = (chosen) => bytes(chosen.reduce((sum, box) => sum + Number(box.dataset.bytes), 0));

function show() {
  const button = document.getElementById("delete");
  if (!button) return;
  const all = document.getElementById("all"), chosen = selected();
  button.disabled = !chosen.length;
  button.textContent = chosen.length ? `Delete ${chosen.length} selected (${size(chosen)})` : "Delete what is selected";
  all.checked = chosen.length > 0 && chosen.length === boxes().length;
  all.indeterminate = chosen.length > 0 && !all.checked;
}

async function remove() {
  const chosen = selected(), said = document.getElementById("said");
  const lost = [...new Set(chosen.map((box) => box.dataset.lost))].join(" ");
  if (!(await confirmed(`Delete ${chosen.length} thing${chosen.length > 1 ? "s" : ""} (${size(chosen)})? Lost: ${lost}`, "Delete"))) return;
  document.getElementById("delete").disabled = true;
  const failed = [];
  for (const [i, box] of chosen.entries()) {
    said.textContent = `Deleting ${i + 1} of ${chosen.length}`;
    const { method, path, body } = JSON.parse(box.dataset.request);
    try {
      await call(method, path, body ?? undefined);
    } catch (error) {
      if (error.status !== 404) failed.push(error.message); // another tab was faster
    }
    box.checked = false;
  }
  Object.assign(said, { textContent: failed.join(" ") || `Deleted ${chosen.length}.`, className: failed.length ? "bad" : "" });
  refresh();
}

document.addEventListener("change", ({ target }) => {
  if (target.id === "all") for (const box of boxes()) box.checked = target.checked;
  show();
});
document.addEventListener("click", ({ target }) => target.id === "delete" && remove());
document.body.addEventListener("htmx:afterSettle", show);
