// One answer of a model as it comes: server-sent events in, parts out; what goes wrong is said in a sentence.

const BUSY = 30; // milliseconds of work after which the page gets a turn: an answer may come faster than it can be drawn

export class Trouble extends Error {
  // kind: what helps. "again", "model" (choose another), "long" (say less), "away" (wait for the connection)
  constructor(message, kind) {
    super(message);
    this.kind = kind;
  }
}

// Yields {by: {name, sha256}}, then {thinking}, {content}, {ids}, {promptIds}, {finish}, {usage}, {timings} as they come.
export async function* answer(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true }, return_token_ids: true });
  const headers = { "Content-Type": "application/json" };
  let reply;
  try {
    reply = await fetch("/v1/chat/completions", { method: "POST", headers, body, signal });
  } catch (error) {
    throw cut(error, "There is no connection to Tandem. The question is kept.");
  }
  if (!reply.ok) throw await refusal(reply, request.model);
  yield { by: { name: reply.headers.get("X-Tandem-Model"), sha256: reply.headers.get("X-Tandem-SHA256") } };
  let ended = false;
  try {
    for await (const chunk of chunks(reply.body)) {
      if (chunk.error) throw new Trouble(`The model broke off: ${chunk.error.message}`, "again");
      for (const part of parts(chunk)) {
        ended ||= "finish" in part;
        yield part;
      }
    }
  } catch (error) {
    if (error instanceof Trouble) throw error;
    throw cut(error, "The connection was lost in the middle of the answer.");
  }
  if (!ended) throw new Trouble("The answer broke off before its end.", "again");
}

function* parts(chunk) {
  if (Array.isArray(chunk.prompt_token_ids)) yield { promptIds: chunk.prompt_token_ids };
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  const thinking = delta.reasoning_content ?? delta.reasoning;
  if (choice?.token_ids?.length) yield { ids: choice.token_ids };
  if (typeof thinking === "string" && thinking) yield { thinking };
  if (typeof delta.content === "string" && delta.content) yield { content: delta.content };
  for (const call of delta.tool_calls ?? []) yield { content: called(call) };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
  if (chunk.timings) yield { timings: chunk.timings };
  if (chunk.usage) yield { usage: chunk.usage };
}

// This page offers no tools; a model that calls one all the same is shown doing so.
const called = ({ function: { name, arguments: text } = {} }) => (name ? `\n\n\`${name}\` ` : "") + (text ?? "");

// The JSON of each event. What cannot be read is passed over: the next event may be whole.
async function* chunks(stream) {
  let rest = "";
  let rested = performance.now();
  for await (const bytes of pieces(stream.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + bytes).split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      if (performance.now() - rested > BUSY) {
        await new Promise((resolve) => { setTimeout(resolve); });
        rested = performance.now();
      }
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      try { yield Object(JSON.parse(data)); } catch { continue; }
    }
  }
}

async function* pieces(stream) { // not every browser iterates a stream
  const reader = stream.getReader();
  try {
    for (let next; !(next = await reader.read()).done;) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

const cut = (error, sentence) => (error.name === "AbortError" ? error : new Trouble(sentence, "away"));

async function refusal(reply, model) {
  const said = (await reply.json().catch(() => null))?.error?.message ?? "";
  const { status } = reply;
  if (status === 401) return new Trouble("You have been signed out. Open a sign-in link in another tab, then try again.", "again");
  if (status === 404) return new Trouble(`${model || "This model"} is not served any more. Choose another model, then try again.`, "model");
  if (status === 429) return new Trouble("Too many requests at once. Wait some seconds, then try again.", "again");
  if (status === 400 && said.includes("Shorten")) {
    const why = said.replace(" Shorten the conversation.", "");
    return new Trouble(`${why} Begin a new chat, or edit an earlier question to go on from there.`, "long");
  }
  if (status >= 500) return new Trouble(said || `The model's server answered ${status}. Try again in a moment.`, "again");
  return new Trouble(said || `The model's server answered ${status}.`, "again");
}
