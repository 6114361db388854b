"""One address for several inference servers: `python -m services.inference.router`, with TANDEM_INFERENCE_REPLICAS.

A request goes to the least busy of those that are ready. Where a server cannot be reached, breaks off, is full or has lent
its GPU, it goes to the next one, as long as nothing of the answer has been passed on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.inference import access
from services.inference.client import Left, broken_off, while_there
from services.inference.door import Server, address
from services.inference.engine import Unavailable
from services.inference.protocol import error
from services.inference.replicas import Replica, Replicas, is_stream
from services.inference.response_events import sse
from services.inference.router_metrics import ATTEMPTS, exposition_of
from shared import logs
from shared import settings as environment
from shared.metrics import MEDIA_TYPE

NEXT = (429, 503)  # it is full, or cannot answer now: another one may
FULL = 429
OF_ONE_HOP = {
    "connection", "content-length", "date", "host", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


def create_app(replicas: Replicas) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await replicas.look()
        watching = asyncio.create_task(replicas.watch())
        yield
        watching.cancel()

    async def health(_: Request) -> Response:
        told = replicas.health()
        return JSONResponse(told, 503 if told["status"] == "loading" else 200)

    async def metrics(_: Request) -> Response:
        texts = await asyncio.gather(*(replica.metrics() for replica in replicas.all))
        return Response(exposition_of(replicas.all, texts), headers={"Content-Type": MEDIA_TYPE})

    async def pass_on(request: Request) -> Response:
        try:
            return await while_there(_answer(replicas, request, await request.body()), request.receive)
        except (Left, ClientDisconnect):
            return Response(status_code=access.LEFT)  # nobody reads it; the log does

    routes = [Route("/health", health), Route("/metrics", metrics)]
    routes += [Route("/v1/{path:path}", pass_on, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[Middleware(access.Access)], lifespan=lifespan)


async def _answer(replicas: Replicas, request: Request, body: bytes) -> Response:
    """The answer of the first one that gives one; else the first one's refusal."""
    path = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
    headers = _of_both_hops(request.headers.items()) | access.passed_on()
    refusal: tuple[Replica, httpx.Response] | None = None
    for replica in replicas.in_order():
        if refusal and refusal[1].status_code == FULL and not replica.ready:
            continue  # it has no model in memory: who is told to wait is better off
        async with AsyncExitStack() as asked:
            try:
                answer = await asked.enter_async_context(replica.asked(request.method, path, headers, body))
            except httpx.TransportError:
                ATTEMPTS.labels(replica.name, "unreachable").inc()
                continue
            if answer.status_code in NEXT:
                ATTEMPTS.labels(replica.name, "refused").inc()
                refusal = refusal or (replica, answer)
                continue
            ATTEMPTS.labels(replica.name, "answered").inc()
            if is_stream(answer):
                return Relayed(replica, answer, request.url.path, asked.pop_all())
            return _whole(replica, answer)
    if refusal:
        return _whole(*refusal)
    says = "No inference server can be reached. They may be starting; try again in a moment."
    return JSONResponse(error(says, "unavailable_error", code=Unavailable.code), 503, {"Retry-After": "5"})


class Relayed(StreamingResponse):
    """The events of a server, passed on as they come. Where they break off, the last one says so."""

    def __init__(self, replica: Replica, answer: httpx.Response, path: str, asked: AsyncExitStack) -> None:
        """`asked` is the context in which the server has the request in hand; it is left at the end."""
        super().__init__(_events(answer, path), answer.status_code, _headers(replica, answer))
        self.asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.asked:
            with suppress(Left):
                await while_there(self.stream_response(send), receive)


async def _events(answer: httpx.Response, path: str) -> AsyncIterator[bytes]:
    """Whole events only, so that nothing stands before the one that tells of an end too soon."""
    begun, sent = b"", 0
    try:
        async for chunk in answer.aiter_raw():
            ready, end, begun = (begun + chunk).rpartition(b"\n\n")
            if end:
                sent += ready.count(b"\n\n") + 1
                yield ready + end
    except httpx.TransportError:
        problem = Unavailable("The inference server broke off: it has died or was stopped. Ask again.")
        if path.endswith("/responses"):
            told = {"code": "server_error", "message": str(problem), "param": None}
            yield sse({"type": "error", "sequence_number": sent, **told}).encode()
        else:
            yield broken_off(problem).encode()


def _whole(replica: Replica, answer: httpx.Response) -> Response:
    return Response(answer.content, answer.status_code, _headers(replica, answer))


def _headers(replica: Replica, answer: httpx.Response) -> dict[str, str]:
    access.note(replica=replica.name)
    return _of_both_hops(answer.headers.items()) | {"X-Tandem-Replica": replica.name}


def _of_both_hops(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in OF_ONE_HOP}


def main() -> None:
    host, port = address(__doc__)
    logs.to_stdout("router")
    settings = environment.load()
    urls = settings.inference_replicas.split()
    if not urls or not all(url.startswith(("http://", "https://")) for url in urls):
        says = "must name the inference servers, as http://inference-1:8000, with blanks between them"
        raise SystemExit(f"TANDEM_INFERENCE_REPLICAS {says}; it is {settings.inference_replicas!r}.")
    Server(create_app(Replicas(urls)), host, port, settings.drain_seconds).run()


if __name__ == "__main__":
    main()
