"""The one who asked: answers go out as they are made, and stop being made when nobody waits for them any more."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.inference.engine import Unavailable
from services.inference.generation import Generation
from services.inference.protocol import error

Result = TypeVar("Result")
DONE = "data: [DONE]\n\n"
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps would make one for each chunk


class Left(Exception):
    """The client has left before its answer was complete."""


async def while_there(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """The result of `work`, which is cancelled as soon as the client is gone: then raises Left."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Left
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(work: Coroutine[Any, Any, Result], generations: Sequence[Generation], receive: Receive) -> Result:
    """The result of `work`, which reads the generations. Raises Left, and what the engine raises."""
    try:
        return await while_there(work, receive)
    finally:
        for generation in generations:
            await generation.aclose()


class Events(StreamingResponse):
    """Server-sent events, made of generations. An error after the first token is told in them: the status is already sent."""

    def __init__(self, lines: AsyncIterator[str], generations: Sequence[Generation], headers: dict[str, str]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self.generations = generations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Left):
            await whole(self.stream_response(send), self.generations, receive)


async def data(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Chunks as lines of chat's and completions' streams."""
    try:
        async with aclosing(chunks):  # type: ignore[type-var]  # it is an asynchronous generator
            async for chunk in chunks:
                yield f"data: {_json(chunk)}\n\n"
    except Unavailable as problem:
        yield broken_off(problem)
    else:
        yield DONE


def broken_off(problem: Unavailable) -> str:
    """The end of a stream that breaks off."""
    return f"data: {json.dumps(error(str(problem), 'unavailable_error', code=problem.code))}\n\n{DONE}"
