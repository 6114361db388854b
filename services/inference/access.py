"""The access log: one JSON line a request, with the id that nginx gave it, what answered, and how fast."""

import contextvars
import logging
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.inference import metrics
from shared import logs

if TYPE_CHECKING:
    from services.inference.generation import Generation

QUIET = ("/health", "/metrics")  # asked every few seconds by machines; logged when they fail
GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
LEFT = 499  # nginx's status for a request whose client has closed the connection
logger = logging.getLogger("tandem.access")


@dataclass
class Asked:
    """What is known of the request that is being answered."""

    request_id: str
    status: int = 500  # until an answer has begun
    model: str | None = None
    generations: "Sequence[Generation]" = ()
    replica: str | None = None


_now: contextvars.ContextVar[Asked | None] = contextvars.ContextVar("asked", default=None)


def note(**known: Any) -> None:
    """Keep what has become known of the request in hand: `model` as it was asked for, `generations`, or the
    `replica` that it was passed on to."""
    if asked := _now.get():
        for name, value in known.items():
            setattr(asked, name, value)


def passed_on() -> dict[str, str]:
    """The headers with which a service behind this one is asked."""
    asked = _now.get()
    return {"X-Request-Id": asked.request_id} if asked else {}


class Access:
    """ASGI middleware: logs and counts each request once its answer has ended, also when the client has left."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        asked = Asked(logs.request_id(headers.get(b"x-request-id", b"").decode("latin-1")))
        _now.set(asked)
        began = time.monotonic()

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                asked.status = message["status"]
            await send(message)

        generating = scope["path"] in GENERATING
        if generating:
            metrics.RUNNING.inc()
        try:
            await self.app(scope, receive, answer)
        finally:
            seconds = time.monotonic() - began
            if generating:
                metrics.RUNNING.dec()
                metrics.ended(outcome(asked), asked.generations, seconds)
            if scope["path"] not in QUIET or asked.status >= 400:
                logger.info("", extra={"fields": _fields(scope, asked, seconds)})


def outcome(asked: Asked) -> metrics.Outcome:
    """How a request for an answer ended. Before the first token it may be refused: it was wrong, too many wait, or the
    engine is away, which is said with 503 at once."""
    states = {made.state for made in asked.generations}
    if asked.status == LEFT:
        return "cancelled"
    if not any(made.tokens for made in asked.generations):
        return "refused" if 400 <= asked.status < 500 or asked.status == 503 else "error"
    if asked.status >= 400 or "failed" in states:
        return "error"
    return "ok" if states == {"done"} else "cancelled"


def _fields(scope: MutableMapping[str, Any], asked: Asked, seconds: float) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": asked.request_id,
        "method": scope["method"],
        "path": scope["path"],  # never the query
        "status": asked.status,
        "ms": round(1000 * seconds, 1),
    }
    if asked.model is not None:
        fields |= {"model": asked.model[:200], "outcome": outcome(asked)}
    if all_made := asked.generations:
        one, waits = all_made[0], [made.first - made.began for made in all_made if made.first]
        fields |= {"answered_by": one.weights.name, "sha256": one.weights.sha256, "backend": one.engine.name}
        fields |= {"prompt_tokens": len(one.prompt), "completion_tokens": sum(len(made.tokens) for made in all_made)}
        fields |= {"ttft_ms": round(1000 * min(waits), 1) if waits else None}
        fields |= {"cached": True} if all(made.kept for made in all_made) else {}
    if asked.replica is not None:
        fields |= {"replica": asked.replica}
    return fields
