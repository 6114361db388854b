// Mathematics in Markdown: $…$, $$…$$, \(…\) and \[…\], set as MathML by Temml, which is fetched when the first formula comes.

const PAIRS = [["$$", "$$", true], ["\\[", "\\]", true], ["\\(", "\\)", false], ["$", "$", false]];

// A plugin of markdown-it.
export function mathematics(md) {
  md.inline.ruler.before("escape", "mathematics", inline);
  md.block.ruler.before("fence", "mathematics", block, { alt: ["paragraph", "reference", "blockquote", "list"] });
  const { escapeHtml } = md.utils;
  const shown = (name, { content, markup, meta }) => { // until it is set, and if it cannot be, as it was written
    const written = escapeHtml(markup + content + meta.close);
    return `<${name} class="math${meta.display ? " display" : ""}" data-tex="${escapeHtml(content)}">${written}</${name}>`;
  };
  md.renderer.rules.mathematics = (tokens, place) => shown("span", tokens[place]);
  md.renderer.rules.mathematics_block = (tokens, place) => shown("div", tokens[place]);
}

function inline(state, silent) {
  const { src, pos, posMax } = state;
  const pair = PAIRS.find(([open]) => src.startsWith(open, pos));
  if (!pair) return false;
  const [open, close, display] = pair;
  const end = closing(src, pos + open.length, close);
  const tex = src.slice(pos + open.length, end);
  if (end < 0 || end + close.length > posMax || !tex.trim()) return false;
  // Pandoc's rule, so that "$5 and $10" are prices.
  if (open === "$" && (/^\s|\s$/.test(tex) || /\d/.test(src[end + 1] ?? ""))) return false;
  if (!silent) {
    const token = state.push("mathematics", "", 0);
    Object.assign(token, { content: tex.trim(), markup: open, meta: { display, close } });
  }
  state.pos = end + close.length;
  return true;
}

function closing(src, from, close) {
  for (let at = src.indexOf(close, from); at >= 0; at = src.indexOf(close, at + 1)) {
    let slashes = 0;
    while (src[at - 1 - slashes] === "\\") slashes += 1;
    if (slashes % 2 === 0) return at;
  }
  return -1;
}

// A formula with lines of its own. One that is not closed yet goes on to the end, as a code block does.
function block(state, begin, end, silent) {
  const text = (line) => state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]);
  const first = text(begin).trim();
  const pair = PAIRS.slice(0, 2).find(([open]) => first.startsWith(open));
  if (!pair || state.sCount[begin] - state.blkIndent >= 4) return false;
  const [open, close] = pair;
  const lines = [];
  let line = begin;
  let closed = false;
  for (; line < end && !closed; line += 1) {
    let part = line === begin ? first.slice(open.length) : text(line);
    if (line > begin && state.sCount[line] < state.blkIndent) break;
    closed = part.trimEnd().endsWith(close);
    if (closed) part = part.trimEnd().slice(0, -close.length);
    lines.push(part);
  }
  if (!closed && first !== open) return false;
  if (silent) return true;
  const token = state.push("mathematics_block", "", 0);
  Object.assign(token, { block: true, content: lines.join("\n").trim(), map: [begin, line], markup: open, meta: { display: true, close } });
  state.line = line;
  return true;
}

let coming = null;
const temml = () => (coming ??= new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = document.querySelector("main").getAttribute("data-temml");
  script.onload = () => resolve(window.temml);
  script.onerror = () => { coming = null; reject(new Error("Temml did not come")); };
  document.head.append(script);
}));

// Set the formulas in and under an element; one that cannot be set stays as it was written.
export function typeset(root) {
  const formulas = [...root.querySelectorAll(".math")];
  if (root.matches(".math")) formulas.push(root);
  if (!formulas.length) return;
  const set = () => { for (const formula of formulas) setFormula(formula); };
  if (window.temml) set();
  else temml().then(set, () => {});
}

function setFormula(element) {
  const tex = element.getAttribute("data-tex");
  try {
    const tree = window.temml.__renderToMathMLTree(tex, { displayMode: element.classList.contains("display"), throwOnError: true });
    withoutStyleAttributes(tree);
    element.replaceChildren(tree.toNode());
  } catch (error) {
    element.classList.add("unset");
    element.title = `This formula cannot be set: ${error.message}`;
  }
}

// Temml writes some styles as an attribute, which the content security policy forbids, and most as properties, which it allows.
function withoutStyleAttributes(node) {
  if (node.attributes?.style) {
    for (const rule of node.attributes.style.split(";")) {
      const [name, value] = rule.split(":");
      if (value) node.style[name.trim().replace(/-(\w)/g, (_, letter) => letter.toUpperCase())] = value.trim();
    }
    delete node.attributes.style;
  }
  for (const child of node.children ?? []) withoutStyleAttributes(child);
}
