// The raw tokens of an answer and of its prompt, with their ids, by the channels that the model chose.
import { call } from "../api.js";
import { el } from "../dom.js";

const shown = (text) => text.replaceAll("\n", "↵\n") || "·";

// Show the tokens under a message, or take them away again.
export async function showTokens(element, message, control) {
  const open = element.querySelector(".tokens");
  control.setAttribute("aria-expanded", String(!open));
  if (open) return open.remove();
  const place = el("div.tokens", { "aria-busy": "true" }, "Reading the tokens…");
  element.append(place);
  const prompt = message.prompt_token_ids ?? [];
  try {
    const [asked, answered] = await Promise.all([tokens(prompt), tokens(message.token_ids)]);
    place.replaceChildren(
      el("details", {}, el("summary", {}, `Prompt: ${prompt.length} tokens`), ...groups(asked)),
      el("h3", {}, `Answer: ${answered.length} tokens`), ...groups(answered));
  } catch (error) {
    place.replaceChildren(el("p.bad", {}, error.message));
  }
  place.setAttribute("aria-busy", "false");
  return place;
}

const tokens = async (ids) => (ids.length ? (await call("POST", "/api/tokens", { ids })).tokens : []);

// Neighbours of one role and channel under one heading.
function groups(list) {
  const found = [];
  for (const token of list) {
    const name = token.channel ? `${token.role}, ${token.channel}` : token.role;
    if (found.at(-1)?.name !== name) found.push({ name, channel: token.channel, tokens: [] });
    found.at(-1).tokens.push(token);
  }
  return found.map((group) => el("section", { "aria-label": group.name }, el("p", {}, group.name),
    el(`ol.${/^[a-z]+$/.test(group.channel ?? "") ? group.channel : "none"}`, {}, ...group.tokens.map(one))));
}

const one = ({ id, text, kind }) => el(`li.${kind}`, { title: kind }, el("code", {}, shown(text)), el("small", {}, String(id)));
