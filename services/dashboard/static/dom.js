// Elements in one line: el("button.plain", {onclick}, "Copy").

export function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key in element && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const button = (text, onclick, properties = {}) => el("button.plain", { type: "button", onclick, ...properties }, text);

// Whether the person says yes. The dialog says what is lost.
export function confirmed(question, yes = "Yes") {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-label": question },
      el("p", {}, question),
      el("div.row", {},
        el("button", { onclick: () => dialog.close() }, "Cancel"),
        el("button.main", { onclick: () => dialog.close("yes") }, yes)));
    dialog.onclose = () => { dialog.remove(); resolve(dialog.returnValue === "yes"); };
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector(".main").focus();
  });
}

// Something that a person must read, in a dialog of its own.
export function tell(text) {
  const dialog = el("dialog", { "aria-label": text }, el("p", {}, text), el("div.row", {}, el("button", { onclick: () => dialog.close() }, "Close")));
  dialog.onclose = () => dialog.remove();
  document.body.append(dialog);
  dialog.showModal();
}

// One line of text from the person, or null.
export function asked(question, value, yes) {
  return new Promise((resolve) => {
    const field = el("input", { value, required: true, maxLength: 200, "aria-label": question });
    const form = el("form.column", { method: "dialog", onsubmit: () => { dialog.returnValue = "yes"; } },
      el("h2", {}, question), field,
      el("div.row", {}, el("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"), el("button.main", {}, yes)));
    const dialog = el("dialog", { "aria-label": question }, form);
    dialog.onclose = () => { dialog.remove(); resolve(dialog.returnValue === "yes" ? field.value.trim() || null : null); };
    document.body.append(dialog);
    dialog.showModal();
    field.select();
  });
}

// Copy a text; the control that asked for it says so for a moment.
export async function copy(text, control) {
  try { await navigator.clipboard.writeText(text); } catch { copyOldWay(text); }
  const before = control.textContent;
  control.textContent = "Copied";
  setTimeout(() => { control.textContent = before; }, 1500);
}

function copyOldWay(text) { // without https there is no clipboard
  const area = el("textarea", { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
