// Inside one data set: the token under the pointer or the keys is described, and a mix gets a name.

const about = document.getElementById("about-token");
let current = null;

function describe(token) {
  current?.classList.remove("at");
  current = token;
  about.hidden = !token;
  if (!token) return;
  token.classList.add("at");
  const { role, channel } = token.closest(".run").dataset;
  const piece = token.parentElement;
  const words = [
    `Token ${Number(token.dataset.i).toLocaleString("en")}`, `id ${token.dataset.id}`, JSON.stringify(text(token)),
    channel ? `${role}, ${channel}` : role, piece.classList[0],
    piece.classList.contains("learned") ? "learned" + (token.dataset.as ? ` as ${token.dataset.as}` : "") : "not learned",
  ];
  about.textContent = words.join(" · ");
}

// The signs for line breaks and tabs stand in <i> and are not of the text.
const text = (token) => [...token.childNodes].filter((child) => child.nodeName !== "I").map((child) => child.textContent).join("");

if (about) {
  addEventListener("pointerover", (event) => {
    const token = event.target.closest?.("[data-i]");
    if (token) describe(token);
  });
  addEventListener("click", (event) => { // a finger has no hover
    const token = event.target.closest("[data-i]");
    if (token) describe(token);
  });
  addEventListener("keydown", (event) => {
    const box = event.target.closest?.("[data-tokens]");
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (!box || !step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const tokens = [...box.querySelectorAll("[data-i]")];
    const place = current && box.contains(current) ? tokens.indexOf(current) + step : 0;
    describe(tokens[Math.min(Math.max(place, 0), tokens.length - 1)]);
    current.scrollIntoView({ block: "nearest" });
  });
  document.body.addEventListener("htmx:beforeSwap", () => describe(null));
}

// A mix is named after its parents until it is given a name.
const name = document.getElementById("name");
if (name) {
  let own = false;
  name.addEventListener("input", () => { own = true; });
  for (const id of ["reasoning", "direct"]) {
    document.getElementById(id).addEventListener("change", () => {
      const names = ["reasoning", "direct"].map((each) => document.getElementById(each).value.split("@")[0]);
      if (!own) name.value = names.join("-").slice(0, 64).replace(/[^a-z0-9]+$/, "");
    });
  }
}

// A menu closes when one looks elsewhere.
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu-of[open]")) if (!menu.contains(event.target)) menu.open = false;
});
addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu-of[open]");
  if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
});
