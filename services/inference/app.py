"""The OpenAI-compatible server: models, chat, responses and completions over an engine that is passed in."""

from asyncio import TaskGroup
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from services.inference import access, answers, metrics
from services.inference.answer import Answer
from services.inference.answers import Chat, Text
from services.inference.backends import Backend, Backends
from services.inference.client import Events, Left, data, while_there, whole
from services.inference.engine import Busy, Engine, Expired, Sampling, Unavailable
from services.inference.generation import STOPS, Generation
from services.inference.gguf import pieces
from services.inference.messages import Unreadable
from services.inference.protocol import ChatRequest, CompletionRequest, Sampled, error, new_id
from services.inference.residence import Base, Residence
from services.inference.response_events import ResponseStream
from services.inference.responses import ResponsesRequest
from services.inference.stops import StopStrings
from shared import registry
from shared.gpus import Glance
from shared.harmony import Encoder, HarmonyError, render
from shared.schemas import NOT_SERVED, now
from shared.settings import Settings
from shared.store import NotFound, Store


class TooLong(ValueError):
    """The prompt leaves no room for an answer."""


def create_app(settings: Settings, engine: Residence, gguf: Engine, glance: Glance) -> FastAPI:
    """The application. `engine` answers for the base and adapters, whenever it is in memory, `gguf` for exports."""
    app = FastAPI(title="Tandem inference", docs_url=None, redoc_url=None)
    app.add_middleware(access.Access)
    store, backends = Store(settings.data), Backends(settings, engine, gguf)

    @app.get("/health")
    async def health() -> JSONResponse:
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

    async def begin(
        request: Request, base: Base, asked: Sampled, prompt: list[int], most: int | None, n: int, **more: Any
    ) -> list[Generation]:
        """`n` answers, with their first tokens there: what goes wrong before them has a status of its own. `more` is of the
        sampling."""
        access.note(model=asked.model)
        backend = await run_in_threadpool(backends.find, asked.model, base.sha256)
        room = settings.context_tokens - len(prompt)
        if room < 1:
            raise TooLong(
                f"The prompt has {len(prompt)} tokens and this server takes {settings.context_tokens}. Shorten the conversation."
            )
        sampling = Sampling(
            min(most or room, room),
            asked.temperature,
            asked.top_p,
            asked.top_k,
            asked.min_p,
            logit_bias=asked.logit_bias,
            deadline=min(asked.deadline or settings.deadline_seconds, settings.deadline_seconds),
            **more,
        )
        backend.check(sampling)
        seeds = [None if asked.seed is None else asked.seed + number for number in range(n)]

        async def begun(backend: Backend) -> list[Generation]:
            one = partial(Generation, backend.engine, base.encoder, prompt, weights=backend.weights)
            made = [one(replace(sampling, seed=seed)) for seed in seeds]
            access.note(generations=made)
            await _all_begin(made, request)
            return made

        try:
            return await begun(backend)
        except (Busy, Expired):  # it can answer, only not now
            raise
        except Unavailable as problem:
            other = await run_in_threadpool(backends.instead, backend, sampling) if asked.fallback else None
            if other is None:
                raise
            with suppress(Unavailable):
                return await begun(other)
            raise problem

    async def chats(request: Request, base: Base, body: ChatRequest) -> list[Chat]:
        """The answers to a request for chat, which have begun."""
        begun = await run_in_threadpool(base.encoder.encode, body.begun())
        rendered = render(body.conversation(), date=now()[:10], effort=body.effort, generate=True)
        prompt = await run_in_threadpool(base.encoder.encode, rendered) + begun
        most = body.max_completion_tokens or body.max_tokens
        logprobs = body.top_logprobs if body.logprobs else None
        more = {"stops": STOPS, "grammar": body.grammar, "begun": len(begun), "logprobs": logprobs}
        more["forced"] = body.thinking_token_budget >= 0
        made = await begin(request, base, body, prompt, most, body.n, **more)
        return [Chat(index, one, Answer(body, base.encoder, begun)) for index, one in enumerate(made)]

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        made = await chats(request, await run_in_threadpool(engine.base), body)
        generations, ident = [one.generation for one in made], new_id("chatcmpl")
        headers = answers.headers(generations)
        if body.stream:
            return Events(data(answers.chat_chunks(made, body, ident)), generations, headers)
        await whole(_gathered([one.read() for one in made]), generations, request.receive)
        return JSONResponse(answers.chat_answer(made, body, ident), headers=headers)

    @app.post("/v1/responses")
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        asked = body.chat()
        made = (await chats(request, await run_in_threadpool(engine.base), asked))[0]
        headers, stream = answers.headers([made.generation]), ResponseStream(body, asked.effort)
        if body.stream:
            return Events(answers.response_events(made, stream), [made.generation], headers)
        await whole(answers.read_response(made, stream), [made.generation], request.receive)
        return JSONResponse(stream.response, headers=headers)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        base = await run_in_threadpool(engine.base)
        encoder = base.encoder
        prompt = body.prompt if isinstance(body.prompt, list) else await run_in_threadpool(_plain, encoder, body.prompt)
        if not prompt or not all(0 <= token < encoder.vocab_size for token in prompt):
            says = f"must be a text, or a list of token ids from 0 to {encoder.vocab_size - 1}, and not empty."
            raise Unreadable("prompt", says)
        more = {"stops": () if body.ignore_eos else STOPS, "logprobs": body.logprobs}
        made = await begin(request, base, body, prompt, body.max_tokens, body.n, **more)
        texts = [Text(index, one, StopStrings(body.stop)) for index, one in enumerate(made)]
        ident, headers = new_id("cmpl"), answers.headers(made)
        if body.stream:
            return Events(data(answers.text_chunks(texts, body, ident)), made, headers)
        choices = await whole(_gathered([answers.text_choice(text, body) for text in texts]), made, request.receive)
        return JSONResponse(answers.text_answer(texts, choices, body, ident), headers=headers)

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


async def _all_begin(generations: list[Generation], request: Request) -> None:
    """Wait for the first tokens of each; where that fails, or the client leaves, none goes on."""
    try:
        await while_there(_gathered([generation.begin() for generation in generations]), request.receive)
    except BaseException:
        for generation in generations:
            await generation.aclose()
        raise


async def _gathered(works: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The results of all. Raises what the first that fails raises, and lets none go on then."""
    try:
        async with TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _plain(encoder: Encoder, text: str) -> list[int]:
    """Text as ids, channel tokens read as such: who completes raw text writes the format themselves."""
    return encoder.encode(pieces(text))


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

    @app.exception_handler(Unreadable)
    def unreadable(_: Request, problem: Unreadable) -> JSONResponse:
        return JSONResponse(error(str(problem), param=problem.param), 400)

    @app.exception_handler(HarmonyError)
    @app.exception_handler(ValueError)
    def refused(_: Request, problem: ValueError) -> JSONResponse:
        return JSONResponse(error(str(problem)), 400)

    @app.exception_handler(Unavailable)
    def unavailable(_: Request, problem: Unavailable) -> JSONResponse:
        body = error(str(problem), "unavailable_error", code=problem.code)
        return JSONResponse(body, problem.status, {"Retry-After": str(problem.retry_after)})

    @app.exception_handler(Left)
    def left(_: Request, __: Left) -> Response:
        return Response(status_code=access.LEFT)  # nobody reads it; the log does

    @app.exception_handler(httpx.HTTPError)
    def broken(_: Request, problem: httpx.HTTPError) -> JSONResponse:
        return JSONResponse(error(str(problem), "unavailable_error", code=Unavailable.code), 503)
