// The words of a message become a field: of a question to ask it differently, of an answer to put it right.
import { button, el } from "../dom.js";

export function edit({ message, column, acts, session, element, text }) {
  if (element.querySelector("form")) return;
  const question = message.role === "user";
  const field = el("textarea", {
    value: message.content,
    required: true,
    "aria-label": question ? "The question" : "The answer, as Markdown",
    oninput: () => fit(field),
  });
  const done = () => {
    form.remove();
    element.classList.remove("edited");
    acts.focus();
  };
  const submit = (event) => {
    event.preventDefault();
    const words = field.value.trim();
    if (!words) return;
    done();
    if (question) acts.edit(column, message, words);
    else if (words !== message.content) session.correct(column, message, words);
  };
  const keys = (event) => {
    if (event.key === "Escape") {
      event.stopPropagation(); // it would stop an answer as well
      done();
    }
    if (event.key !== "Enter" || event.isComposing || (question ? event.shiftKey : !event.ctrlKey && !event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  };
  const stays = question ? "The old question stays on its branch." : "The original stays on its branch. Ctrl+Enter saves.";
  const form = el("form", { onsubmit: submit, onkeydown: keys }, field, el("div.row", {},
    el("button.main", {}, question ? "Ask" : "Save"),
    button("Cancel", done, { className: "" }),
    el("small.quiet", {}, stays)));
  text.after(form);
  element.classList.add("edited");
  fit(field);
  field.focus();
}

function fit(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}
