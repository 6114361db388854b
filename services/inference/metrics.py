"""What the inference server counts, as Prometheus reads it; the names mean what vLLM's of the same name mean.

`model` is the kind of what answers (base, adapter, export), as names are without bound; a request that was refused
before that was known is counted under `none`.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.responses import Response

from shared.metrics import MEDIA_TYPE, exposition, gpus

if TYPE_CHECKING:
    from services.inference.generation import Generation

Kind = Literal["base", "adapter", "export"]
Outcome = Literal["ok", "error", "cancelled", "refused"]
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)  # seconds
FIRST = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
WHOLE = (0.1, 0.3, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 60, 120, 240, 480, 960)

REGISTRY = CollectorRegistry()
_made: dict[str, Any] = {"registry": REGISTRY}
REQUESTS = Counter("tandem_requests", "Requests for an answer, by how they ended.", ["model", "outcome"], **_made)
RUNNING = Gauge("tandem_requests_running", "Requests for an answer that are being worked on, or wait.", **_made)
WAITING = Gauge("tandem_requests_waiting", "Requests that wait for a place in the engine's batch.", **_made)
CACHE_USE = Gauge("tandem_kv_cache_usage_perc", "Share of the KV cache that running requests hold; 1 is all.", **_made)
PREFIX_QUERIES = Counter("tandem_prefix_cache_queries", "Tokens of prompts that were looked for in the cache.", **_made)
PREFIX_HITS = Counter("tandem_prefix_cache_hits", "Tokens of prompts that were there and are not read again.", **_made)
KEPT_QUERIES = Counter(
    "tandem_response_cache_queries", "Requests whose answer was looked for among those given before.", **_made
)
KEPT_HITS = Counter("tandem_response_cache_hits", "Requests whose answer was there and is given once more.", **_made)
PROMPT = Counter("tandem_prompt_tokens", "Tokens of the prompts.", ["model"], **_made)
GENERATED = Counter("tandem_generation_tokens", "Tokens of the answers.", ["model"], **_made)
TO_FIRST = Histogram(
    "tandem_time_to_first_token_seconds",
    "Time from the rendered prompt to the first token.",
    ["model"],
    buckets=FIRST,
    **_made,
)
BETWEEN = Histogram(
    "tandem_inter_token_latency_seconds", "Time between two tokens of an answer.", ["model"], buckets=SHORT, **_made
)
LATENCY = Histogram(
    "tandem_e2e_request_latency_seconds",
    "Time from a request to the end of its answer, of those that ended well.",
    ["model"],
    buckets=WHOLE,
    **_made,
)
READY = Gauge("tandem_engine_ready", "1 if the engine can answer, 0 while it is being loaded or sleeps.", **_made)

_OF_TOKENS = {kind: tuple(each.labels(kind) for each in (GENERATED, TO_FIRST, BETWEEN)) for kind in get_args(Kind)}

for _kind in get_args(Kind):  # from the start at 0, so that the first one is seen as an increase
    for _family in (PROMPT, GENERATED, TO_FIRST, BETWEEN, LATENCY):
        _family.labels(_kind)
for _kind in (*get_args(Kind), "none"):
    for _outcome in get_args(Outcome):
        REQUESTS.labels(_kind, _outcome)


def tokens(model: Kind, count: int, seconds: float, *, first: bool) -> None:
    """Tokens came together, `seconds` after those before them; the first ones, after the prompt."""
    generated, to_first, between = _OF_TOKENS[model]
    generated.inc(count)
    if first:
        to_first.observe(seconds)
    each = 0 if first else seconds / count
    for _ in range(count - first):
        between.observe(each)


def ended(outcome: Outcome, generations: "Sequence[Generation]", seconds: float) -> None:
    """A request, for which there may be several answers, ended after `seconds`. Its prompt counts once, as in `usage`."""
    kind = generations[0].kind if generations else "none"
    REQUESTS.labels(kind, outcome).inc()
    if any(generation.tokens for generation in generations):
        PROMPT.labels(kind).inc(len(generations[0].prompt))
        if outcome == "ok":
            LATENCY.labels(kind).observe(seconds)


def add_route(app: FastAPI, about: Callable[[], dict[str, Any]]) -> None:
    """Serve /metrics. `about` is what /health tells: the `status` of the engine, the `gpus`."""

    @app.get("/metrics")
    def metrics() -> Response:
        told = about()
        READY.set(told["status"] == "ok")
        seen = (("inference", gpu) for gpu in told["gpus"])
        return Response(exposition(chain(REGISTRY.collect(), gpus(seen))), headers={"Content-Type": MEDIA_TYPE})
