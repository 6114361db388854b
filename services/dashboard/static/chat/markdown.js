// Markdown as it comes in: blocks that are finished are rendered once, only the last one again and again.
import { mathematics, typeset } from "./maths.js";

const md = window.markdownit({ html: false, linkify: true });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false }); // "setup.py" is no address in Paraguay
md.use(mathematics);

const plain = md.renderer.renderToken.bind(md.renderer);
md.renderer.rules.link_open = (tokens, place, options) => {
  tokens[place].attrSet("rel", "noopener noreferrer");
  tokens[place].attrSet("target", "_blank");
  return plain(tokens, place, options);
};
// An image would be fetched from wherever the model says: its words stand for it.
md.renderer.rules.image = (tokens, place) => {
  const { content } = tokens[place];
  return `<span class="picture">Image: ${md.utils.escapeHtml(content || tokens[place].attrGet("src"))}</span>`;
};
// The content security policy forbids the style attribute in which markdown-it puts a column's alignment.
md.renderer.rules.th_open = md.renderer.rules.td_open = (tokens, place, options) => {
  const token = tokens[place];
  const side = /text-align:(\w+)/.exec(token.attrGet("style") ?? "")?.[1];
  token.attrs = side ? [["class", side]] : null;
  return plain(tokens, place, options);
};
md.renderer.rules.table_open = () => '<div class="table" tabindex="0" role="region" aria-label="Table"><table>';
md.renderer.rules.table_close = () => "</table></div>";
md.renderer.rules.fence = md.renderer.rules.code_block = (tokens, place) => {
  const language = md.utils.escapeHtml(tokens[place].info.trim().split(/\s+/)[0] ?? "");
  const code = md.utils.escapeHtml(tokens[place].content);
  const bar = `<span>${language || "text"}</span><button type="button" class="plain" data-code>Copy</button>`;
  return `<div class="code"><div class="codebar">${bar}</div><pre tabindex="0" role="region" aria-label="Code"><code>${code}</code></pre></div>`;
};

// A model's headings stand below the page's own, whatever level it begins with.
md.renderer.rules.heading_open = (tokens, place) => `<h3 class="${tokens[place].tag}">`;
md.renderer.rules.heading_close = () => "</h3>\n";

// An element that shows a text that grows.
export class Flow {
  constructor(element) {
    this.element = element;
    this.reset();
  }

  reset() {
    this.element.replaceChildren();
    Object.assign(this, { source: "", finished: "", env: {}, live: [], explained: false });
  }

  // `whole`: nothing more comes for now.
  update(text, whole) {
    const source = text.replace(/\r\n?/g, "\n");
    if (!source.startsWith(this.finished)) this.reset();
    if (source !== this.source) this.draw(source);
    if (whole && !this.explained && Object.keys(this.env.references ?? {}).length) {
      const { env } = this; // a link may be explained after the block in which it stands
      this.reset();
      Object.assign(this, { env, explained: true });
      this.draw(source);
    }
  }

  draw(source) {
    const rest = source.slice(this.finished.length);
    const tokens = md.parse(rest, this.env);
    const last = lastBlock(tokens);
    for (const node of this.live) node.remove();
    this.append(tokens.slice(0, last));
    this.live = this.append(tokens.slice(last));
    this.source = source;
    if (last) this.finished += upTo(rest, tokens[last].map[0]);
  }

  append(tokens) {
    const template = document.createElement("template");
    template.innerHTML = md.renderer.render(tokens, md.options, this.env);
    const nodes = [...template.content.childNodes];
    this.element.append(template.content);
    for (const node of nodes) if (node.querySelectorAll) typeset(node);
    return nodes;
  }
}

function lastBlock(tokens) {
  for (let place = tokens.length - 1; place > 0; place -= 1) {
    if (tokens[place].level === 0 && tokens[place].nesting >= 0 && tokens[place].map) return place;
  }
  return 0;
}

function upTo(text, line) {
  let end = 0;
  for (let number = 0; number < line; number += 1) end = text.indexOf("\n", end) + 1;
  return text.slice(0, end);
}
