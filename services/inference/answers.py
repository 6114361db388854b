"""What a generation looks like in OpenAI's API: chunks of a stream, and whole answers."""

from collections.abc import AsyncIterator
from typing import Any

from services.inference.generation import Generation
from services.inference.protocol import ChatRequest, CompletionRequest, envelope, new_id
from shared.harmony import Delta


async def chat_chunks(generation: Generation, body: ChatRequest, ident: str) -> AsyncIterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        choice |= {"token_ids": [token.id for token in generation.untold()]} if body.return_token_ids else {}
        return envelope("chat.completion.chunk", ident, body.model, [choice], system_fingerprint=made_by, **more)

    made_by = fingerprint(generation)
    prompt = {"prompt_token_ids": generation.prompt} if body.return_token_ids else {}
    yield chunk({"role": "assistant", "content": ""}, **prompt)
    async for delta in generation.deltas():
        if part := _delta(delta, ident):
            yield chunk(part)
    yield chunk({}, generation.finish_reason, timings=generation.timings())
    if body.usage_wanted:
        yield envelope("chat.completion.chunk", ident, body.model, [], usage=generation.usage())


def chat_answer(generation: Generation, body: ChatRequest, ident: str) -> dict[str, Any]:
    message = _numbered(generation.message())
    choice = {"index": 0, "message": message, "finish_reason": generation.finish_reason, "logprobs": None}
    choice |= {"token_ids": generation.ids} if body.return_token_ids else {}
    prompt = {"prompt_token_ids": generation.prompt} if body.return_token_ids else {}
    return envelope("chat.completion", ident, body.model, [choice], **prompt, **_told(generation))


async def text_chunks(generation: Generation, body: CompletionRequest, ident: str) -> AsyncIterator[dict[str, Any]]:
    def choice(text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}

    async for text in generation.text():
        yield envelope("text_completion", ident, body.model, [choice(text, None)])
    last = choice("", generation.finish_reason)
    yield envelope("text_completion", ident, body.model, [last], timings=generation.timings())
    if body.usage_wanted:
        yield envelope("text_completion", ident, body.model, [], usage=generation.usage())


def text_answer(generation: Generation, text: str, body: CompletionRequest, ident: str) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": generation.finish_reason, "logprobs": None}
    return envelope("text_completion", ident, body.model, [choice], **_told(generation))


def fingerprint(generation: Generation) -> str:
    return f"{generation.engine.name}-{generation.weights.sha256[:16]}"


def headers(generation: Generation) -> dict[str, str]:
    """Which weights answer, by name and hash: an alias may move between two requests."""
    return {
        "X-Tandem-Model": generation.weights.name,
        "X-Tandem-SHA256": generation.weights.sha256,
        "X-Accel-Buffering": "no",
        "Cache-Control": "no-cache",
    }


def _told(generation: Generation) -> dict[str, Any]:
    return {
        "usage": generation.usage(),
        "timings": generation.timings(),
        "system_fingerprint": fingerprint(generation),
    }


def _delta(delta: Delta, ident: str) -> dict[str, Any]:
    if delta.recipient is not None:
        call: dict[str, Any] = {"index": delta.index, "function": {"arguments": delta.arguments}}
        if not delta.arguments:  # the first one announces the call
            call |= {"id": f"call-{ident}-{delta.index}", "type": "function"}
            call["function"]["name"] = delta.recipient
        return {"tool_calls": [call]}
    if not delta.text:
        return {}
    if delta.channel == "analysis":
        return {"reasoning": delta.text, "reasoning_content": delta.text}
    return {"content": delta.text}


def _numbered(message: dict[str, Any]) -> dict[str, Any]:
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
