"""What generations look like in OpenAI's API: chunks of a stream, and whole answers. A request may ask for several."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.inference import logprobs
from services.inference.answer import Answer
from services.inference.engine import Unavailable
from services.inference.generation import Generation
from services.inference.merge import merged
from services.inference.protocol import ChatRequest, CompletionRequest, envelope, new_id
from services.inference.response_events import ResponseStream, sse
from services.inference.response_events import usage as response_usage
from services.inference.stops import StopStrings
from shared.harmony import Delta

Json = dict[str, Any]


@dataclass
class Chat:
    """One of the answers to a chat request."""

    index: int
    generation: Generation
    answer: Answer

    async def read(self) -> None:
        """To the end, for who wants no stream."""
        self.logprobs = [entry async for said in self.generation.said(self.answer) for entry in said.logprobs]

    async def choices(self, body: ChatRequest, ident: str) -> AsyncIterator[Json]:
        """As a stream's chunks have it, the reason for its end in the last."""
        prompt = {"prompt_token_ids": self.generation.prompt} if body.return_token_ids else {}
        yield self._choice(body, {"role": "assistant", "content": ""}) | prompt
        async for said in self.generation.said(self.answer):
            if part := _delta(said.delta, ident, self.index):
                yield self._choice(body, part, told=said.logprobs)
        yield self._choice(body, {}, self.answer.finish_reason)

    def _choice(self, body: ChatRequest, delta: Json, reason: str | None = None, told: Sequence[Json] = ()) -> Json:
        choice = {"index": self.index, "delta": delta, "finish_reason": reason}
        choice["logprobs"] = {"content": list(told)} if body.logprobs and told else None
        ids = {"token_ids": [token.id for token in self.generation.untold()]} if body.return_token_ids else {}
        return choice | ids

    def choice(self, body: ChatRequest) -> Json:
        """As a whole answer has it."""
        choice = {"index": self.index, "message": _numbered(self.answer.message())}
        choice |= {"finish_reason": self.answer.finish_reason, "stop_reason": self.answer.stop_reason}
        choice["logprobs"] = {"content": self.logprobs} if body.logprobs else None
        return choice | ({"token_ids": self.generation.ids} if body.return_token_ids else {})


async def chat_chunks(chats: list[Chat], body: ChatRequest, ident: str) -> AsyncIterator[Json]:
    generations = [chat.generation for chat in chats]
    async for choice in merged([chat.choices(body, ident) for chat in chats]):
        told = {"prompt_token_ids": ids} if (ids := choice.pop("prompt_token_ids", None)) else {}
        if choice["finish_reason"]:
            told["timings"] = chats[choice["index"]].generation.timings()
        yield envelope(
            "chat.completion.chunk", ident, body.model, [choice], system_fingerprint=fingerprint(generations), **told
        )
    if body.usage_wanted:
        yield envelope("chat.completion.chunk", ident, body.model, [], usage=chat_usage(chats))


def chat_answer(chats: list[Chat], body: ChatRequest, ident: str) -> Json:
    prompt = {"prompt_token_ids": chats[0].generation.prompt} if body.return_token_ids else {}
    told = _told([chat.generation for chat in chats], chat_usage(chats))
    return envelope("chat.completion", ident, body.model, [chat.choice(body) for chat in chats], **prompt, **told)


def chat_usage(chats: list[Chat]) -> Json:
    thought = sum(chat.answer.thinking.used for chat in chats)
    return usage([chat.generation for chat in chats]) | {"completion_tokens_details": {"reasoning_tokens": thought}}


async def response_events(chat: Chat, stream: ResponseStream) -> AsyncIterator[str]:
    """A response's events as they go over the wire; one that breaks off says so in its last."""
    events = stream.begin()
    try:
        for event in events:
            yield sse(event)
        async for said in chat.generation.said(chat.answer):
            for event in stream.feed(said.delta, said.logprobs):
                yield sse(event)
        events = stream.finish(chat.answer.finish_reason, _response_usage(chat))
    except Unavailable as problem:
        events = stream.fail(str(problem))
    for event in events:
        yield sse(event)


async def read_response(chat: Chat, stream: ResponseStream) -> None:
    """Have the stream take in the whole answer, for who wants no events."""
    stream.begin()
    async for said in chat.generation.said(chat.answer):
        stream.feed(said.delta, said.logprobs)
    stream.finish(chat.answer.finish_reason, _response_usage(chat))


def _response_usage(chat: Chat) -> Json:
    made = chat.generation
    return response_usage(len(made.prompt), 0, len(made.tokens), chat.answer.thinking.used)


@dataclass
class Text:
    """One of the continuations of a raw text."""

    index: int
    generation: Generation
    stops: StopStrings

    async def choices(self, body: CompletionRequest) -> AsyncIterator[Json]:
        told = logprobs.Completion(self.generation.encoder)
        async for text, tokens in self.generation.text(self.stops):
            known = [(token.id, token.logprob or 0.0, token.top) for token in tokens]
            yield self._choice(text) | ({"logprobs": told.chunk(known)} if body.logprobs is not None else {})
        last = self.generation.tokens[-1].id if self.generation.tokens else None
        ended = self.stops.found is not None or last in self.generation.sampling.stops
        yield self._choice("") | {"finish_reason": "stop" if ended else "length", "stop_reason": self.stops.found}

    def _choice(self, text: str) -> Json:
        return {"index": self.index, "text": text, "finish_reason": None, "logprobs": None}


async def text_chunks(texts: list[Text], body: CompletionRequest, ident: str) -> AsyncIterator[Json]:
    async for choice in merged([text.choices(body) for text in texts]):
        ended = choice["finish_reason"]
        timings = {"timings": texts[choice["index"]].generation.timings()} if ended else {}
        yield envelope("text_completion", ident, body.model, [choice], **timings)
    if body.usage_wanted:
        generations = [text.generation for text in texts]
        yield envelope("text_completion", ident, body.model, [], usage=usage(generations))


async def text_choice(text: Text, body: CompletionRequest) -> Json:
    """As a whole answer has it."""
    parts = [part async for part in text.choices(body)]
    choice = parts[-1] | {"text": "".join(part["text"] for part in parts)}
    if body.logprobs is not None:
        told = [part["logprobs"] for part in parts if part["logprobs"]]
        choice["logprobs"] = {key: [value for one in told for value in one[key]] for key in logprobs.LISTS}
    return choice


def text_answer(texts: list[Text], choices: list[Json], body: CompletionRequest, ident: str) -> Json:
    generations = [text.generation for text in texts]
    return envelope("text_completion", ident, body.model, choices, **_told(generations, usage(generations)))


def fingerprint(generations: list[Generation]) -> str:
    return f"{generations[0].engine.name}-{generations[0].weights.sha256[:16]}"


def headers(generations: list[Generation]) -> dict[str, str]:
    """Which weights answer, by name and hash: an alias may move between two requests, an export answer for its adapter."""
    first = generations[0]
    kept = {"X-Tandem-Cache": "hit"} if all(generation.kept for generation in generations) else {}
    return {
        "X-Tandem-Model": first.weights.name,
        "X-Tandem-SHA256": first.weights.sha256,
        "X-Tandem-Backend": first.engine.name,
        "X-Accel-Buffering": "no",
        "Cache-Control": "no-cache",
        **kept,
    }


def usage(generations: list[Generation]) -> Json:
    """Tokens: of the prompt, which is read once, and of all answers to it."""
    prompt, made = len(generations[0].prompt), sum(len(generation.tokens) for generation in generations)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _told(generations: list[Generation], used: Json) -> Json:
    return {
        "usage": used,
        "timings": generations[0].timings(),
        "system_fingerprint": fingerprint(generations),
    }


def _delta(delta: Delta, ident: str, choice: int) -> Json:
    if delta.recipient is not None:
        call: Json = {"index": delta.index, "function": {"arguments": delta.arguments}}
        if not delta.arguments:  # the first one announces the call
            call |= {"id": f"call-{ident}-{choice}-{delta.index}", "type": "function"}
            call["function"]["name"] = delta.recipient
        return {"tool_calls": [call]}
    if not delta.text:
        return {}
    if delta.channel == "analysis":
        return {"reasoning": delta.text, "reasoning_content": delta.text}
    return {"content": delta.text}


def _numbered(message: Json) -> Json:
    """A parsed message in OpenAI's shape, both names of the reasoning filled."""
    calls = [{**call, "id": new_id("call"), "type": "function"} for call in message["tool_calls"]]
    reasoning = message["reasoning"] or None
    answer = {
        "role": "assistant",
        "content": message["content"],
        "reasoning": reasoning,
        "reasoning_content": reasoning,
    }
    return {**answer, **({"tool_calls": calls} if calls else {})}
