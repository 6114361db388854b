"""The OpenAI-compatible server: models, chat completions and completions over an engine that is passed in."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException

from services.inference import access, metrics
from services.inference.engine import Engine, Sampling, Unavailable, Weights
from services.inference.generation import Generation
from services.inference.gguf import pieces
from services.inference.protocol import ChatRequest, CompletionRequest, envelope, error, new_id
from services.inference.residence import Base, Residence
from shared import registry
from shared.gpus import Glance
from shared.harmony import Delta, Encoder, HarmonyError, render
from shared.registry import Target
from shared.schemas import NOT_SERVED, now
from shared.settings import Settings
from shared.store import NotFound, Store


class TooLong(ValueError):
    """The prompt leaves no room for an answer."""


def create_app(settings: Settings, engine: Residence, gguf: Engine, glance: Glance) -> FastAPI:
    """The application. `engine` answers for the base and adapters, whenever it is in memory, `gguf` for exports."""
    app = FastAPI(title="Tandem inference", docs_url=None, redoc_url=None)
    app.add_middleware(access.Access)
    store = Store(settings.data)

    @app.get("/health")
    def health() -> JSONResponse:
        told = about()
        return JSONResponse(told, 503 if told["status"] == "loading" else 200)

    def about() -> dict[str, Any]:
        named = {"engine": engine.name, "base_model": settings.base_model}
        return {**engine.told(), **named, "gpus": glance.latest()}

    metrics.add_route(app, about)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": list(_models(store, settings.base_model))}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> Any:
        found = [entry for entry in _models(store, settings.base_model) if entry["id"] == name]
        return found[0] if found else JSONResponse(error(f"There is no model {name!r}.", code="model_not_found"), 404)

    def begin(
        base: Base, request: ChatRequest | CompletionRequest, prompt: list[int], most: int | None, begun: int = 0
    ) -> Generation:
        access.note(model=request.model)
        weights, target = _weights(store, settings.base_model, base.sha256, request.model)
        if target.kind != "export":
            engine.check()
        room = settings.context_tokens - len(prompt)
        if room < 1:
            raise TooLong(
                f"The prompt has {len(prompt)} tokens and this server takes {settings.context_tokens}. Shorten the conversation."
            )
        sampling = Sampling(
            min(most or room, room), request.temperature, request.top_p, request.top_k, request.min_p, request.seed
        )
        return Generation(gguf if target.kind == "export" else engine, base.encoder, prompt, sampling, weights, begun)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Any:
        base = await run_in_threadpool(engine.base)
        begun = await run_in_threadpool(base.encoder.encode, body.begun())
        rendered = render(body.conversation(), date=now()[:10], effort=body.effort, generate=True)
        prompt = await run_in_threadpool(base.encoder.encode, rendered) + begun
        generation = begin(base, body, prompt, body.max_completion_tokens or body.max_tokens, len(begun))
        ident = new_id("chatcmpl")
        headers = _headers(generation)
        if body.stream:
            chunks = _chat_chunks(generation, body, ident)
            return StreamingResponse(_sse(chunks, generation, request), media_type="text/event-stream", headers=headers)
        await _until_done(generation.deltas, generation, request)
        message = _numbered(generation.message())
        choice = {"index": 0, "message": message, "finish_reason": generation.finish_reason, "logprobs": None}
        choice |= {"token_ids": generation.ids} if body.return_token_ids else {}
        more = {
            **({"prompt_token_ids": prompt} if body.return_token_ids else {}),
            "usage": generation.usage(),
            "timings": generation.timings(),
            "system_fingerprint": _fingerprint(generation),
        }
        return JSONResponse(envelope("chat.completion", ident, body.model, [choice], **more), headers=headers)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Any:
        base = await run_in_threadpool(engine.base)
        encoder = base.encoder
        prompt = body.prompt if isinstance(body.prompt, list) else await run_in_threadpool(_plain, encoder, body.prompt)
        if not prompt or not all(0 <= token < encoder.vocab_size for token in prompt):
            raise ValueError(
                f"prompt must be a text, or a list of token ids from 0 to {encoder.vocab_size - 1}, and not empty."
            )
        generation = begin(base, body, prompt, body.max_tokens)
        ident = new_id("cmpl")
        headers = _headers(generation)
        if body.stream:
            chunks = _text_chunks(generation, body, ident)
            return StreamingResponse(_sse(chunks, generation, request), media_type="text/event-stream", headers=headers)
        texts = await _until_done(generation.text, generation, request)
        choice = {"index": 0, "text": "".join(texts), "finish_reason": generation.finish_reason, "logprobs": None}
        more = {
            "usage": generation.usage(),
            "timings": generation.timings(),
            "system_fingerprint": _fingerprint(generation),
        }
        return JSONResponse(envelope("text_completion", ident, body.model, [choice], **more), headers=headers)

    _add_errors(app)
    return app


def _models(store: Store, base: str) -> Iterator[dict[str, Any]]:
    """vLLM's form: `root` is what the name stands for, `parent` what that was made from."""

    def entry(name: str, root: str, parent: str | None, kind: str, created: int = 0) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "tandem",
            "root": root,
            "parent": parent,
            "kind": kind,
        }

    yield entry(base, base, None, "base")
    parents = {card.reference: card.base_model for card in registry.adapters(store)}
    parents |= {card.file: card.adapter for card in registry.exports(store) if card.encoding not in NOT_SERVED}
    for alias, target in registry.aliases(store).items():
        yield entry(alias, target, parents.get(target), "alias")
    for name, parent in parents.items():
        yield entry(name, name, parent, "adapter" if "@" in name else "export")


def _weights(store: Store, base: str, base_sha256: str, model: str) -> tuple[Weights, Target]:
    target = registry.resolve(store, model, base)
    if target.kind == "adapter":
        return Weights(target.name, registry.adapter_card(store, target.name).sha256, target.path), target
    if target.kind == "export":
        card = registry.export_card(store, target.name)
        if card.encoding in NOT_SERVED:
            raise NotFound(
                f"{target.name} ({card.encoding}) is for other programs; it is not served here. Use its adapter {card.adapter}."
            )
        return Weights(target.name, card.sha256), target
    return Weights(base, base_sha256), target


def _plain(encoder: Encoder, text: str) -> list[int]:
    """Text as ids, channel tokens read as such: who completes raw text writes the format themselves."""
    return encoder.encode(pieces(text))


def _chat_chunks(generation: Generation, body: ChatRequest, ident: str) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        choice |= {"token_ids": generation.untold()} if body.return_token_ids else {}
        return envelope("chat.completion.chunk", ident, body.model, [choice], system_fingerprint=fingerprint, **more)

    fingerprint = _fingerprint(generation)
    prompt = {"prompt_token_ids": generation.prompt} if body.return_token_ids else {}
    yield chunk({"role": "assistant", "content": ""}, **prompt)
    for delta in generation.deltas():
        if part := _delta(delta, ident):
            yield chunk(part)
    yield chunk({}, generation.finish_reason, timings=generation.timings())
    if body.usage_wanted:
        yield envelope("chat.completion.chunk", ident, body.model, [], usage=generation.usage())


def _text_chunks(generation: Generation, body: CompletionRequest, ident: str) -> Iterator[dict[str, Any]]:
    for text in generation.text():
        if text:
            yield envelope(
                "text_completion",
                ident,
                body.model,
                [{"index": 0, "text": text, "finish_reason": None, "logprobs": None}],
            )
    last = {"index": 0, "text": "", "finish_reason": generation.finish_reason, "logprobs": None}
    yield envelope("text_completion", ident, body.model, [last], timings=generation.timings())
    if body.usage_wanted:
        yield envelope("text_completion", ident, body.model, [], usage=generation.usage())


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


def _fingerprint(generation: Generation) -> str:
    return f"{generation.engine.name}-{generation.weights.sha256[:16]}"


def _headers(generation: Generation) -> dict[str, str]:
    """Which weights answer, by name and hash: an alias may move between two requests."""
    return {
        "X-Tandem-Model": generation.weights.name,
        "X-Tandem-SHA256": generation.weights.sha256,
        "X-Accel-Buffering": "no",
        "Cache-Control": "no-cache",
    }


async def _until_done(work: Callable[[], Iterator[Any]], generation: Generation, request: Request) -> list[Any]:
    """Everything that `work` yields; the engine is stopped if the client leaves."""
    found = []
    async for item in _watched(work(), generation.stop, request):
        found.append(item)
    return found


async def _sse(chunks: Iterator[dict[str, Any]], generation: Generation, request: Request) -> AsyncIterator[str]:
    """Chunks as server-sent events. An error after the first byte is told in the stream: the status is already sent."""
    try:
        async for chunk in _watched(chunks, generation.stop, request):
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    except Unavailable as problem:
        yield f"data: {json.dumps(error(str(problem), 'unavailable_error', code=problem.code))}\n\n"
    yield "data: [DONE]\n\n"


async def _watched(items: Iterator[Any], stop: threading.Event, request: Request) -> AsyncIterator[Any]:
    """`items`, made in a thread so that the loop stays free; `stop` is set as soon as the client is gone."""
    try:
        async for item in iterate_in_threadpool(items):
            if await request.is_disconnected():
                return
            yield item
    finally:
        stop.set()


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body") or None
        return JSONResponse(error(f"{field or 'The body'}: {first['msg']}", param=field), 400)

    @app.exception_handler(HTTPException)
    def http(_: Request, problem: HTTPException) -> JSONResponse:
        return JSONResponse(error(str(problem.detail)), problem.status_code)

    @app.exception_handler(NotFound)
    def missing(_: Request, problem: NotFound) -> JSONResponse:
        return JSONResponse(error(str(problem), param="model", code="model_not_found"), 404)

    @app.exception_handler(HarmonyError)
    @app.exception_handler(ValueError)
    def refused(_: Request, problem: ValueError) -> JSONResponse:
        return JSONResponse(error(str(problem)), 400)

    @app.exception_handler(Unavailable)
    def unavailable(_: Request, problem: Unavailable) -> JSONResponse:
        body = error(str(problem), "unavailable_error", code=problem.code)
        return JSONResponse(body, 503, {"Retry-After": str(problem.retry_after)})

    @app.exception_handler(httpx.HTTPError)
    def broken(_: Request, problem: httpx.HTTPError) -> JSONResponse:
        return JSONResponse(error(str(problem), "unavailable_error", code=Unavailable.code), 503)
