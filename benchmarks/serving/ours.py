"""The product's server, measured from outside: over HTTP, as everybody asks it."""

import json
import statistics
from collections.abc import Iterator

import httpx

from benchmarks.serving.clients import Address, Clients
from benchmarks.serving.place import BASE, Place
from benchmarks.serving.speed import (
    ADAPTERS,
    MIXED,
    PROOF_PROMPTS,
    PROOF_TOKENS,
    ROUNDS,
    STREAMS,
    TOKENS,
    WARM,
    decode,
    prompts,
)
from shared.gpus import gpus

Found = tuple[str, float]
MOST = max(STREAMS)
LONG_PROMPT = 1000  # tokens
FIRST_TOKENS = 10  # how often the time to the first one is taken
LOAD_SECONDS = 6.0
LIKELIEST = 20  # of which the API tells the log-probabilities at most
PROVEN = f"{ADAPTERS[0]}@v1"
MIXED_MODELS = [f"{ADAPTERS[n % len(ADAPTERS)]}@v1" for n in range(MIXED)]


def speeds(place: Place) -> Iterator[Found]:
    """Everything that takes one start: by streams, over adapters, first token, /health under load, through nginx."""
    place.prepare()
    with place.server("ours", TANDEM_SEQUENCES=str(MOST)) as (server, _), Clients(MOST) as clients:
        for streams in STREAMS:
            yield f"ours_{streams}", rate(clients, server, [BASE] * streams)
        yield "ours_adapters_8", rate(clients, server, MIXED_MODELS)
        place.ours_says.write_text(
            json.dumps({"base": next_tokens(server, BASE), "adapter": next_tokens(server, PROVEN)})
        )
        yield "ours_ttft_ms", first_token(clients, server) * 1000
        yield "ours_health_ms", health(clients, server) * 1000
        yield from through_nginx(place, clients, server)


def start(place: Place) -> Iterator[Found]:
    """A start with the settings as they come, the second one, whose kernels the first has compiled; and the GPU's memory when all
    adapters have answered."""
    place.prepare()
    before = memory()
    with place.server("first_start") as (_, seconds):
        yield "ours_first_start_s", seconds
    with place.server("start") as (server, seconds), Clients(MIXED) as clients:
        yield "ours_start_s", seconds
        clients.seconds(server, MIXED_MODELS, TOKENS)
        if gpus():
            yield "ours_resident_gib", (memory() - before) / 2**30


def rate(clients: Clients, server: Address, models: list[str]) -> float:
    return decode(lambda tokens: clients.seconds(server, models, tokens), len(models))


def first_token(clients: Clients, server: Address) -> float:
    """Median seconds of an answer of one token to a long prompt."""
    took = [clients.seconds(server, [BASE], 1, LONG_PROMPT) for _ in range(WARM + FIRST_TOKENS)]
    return statistics.median(took[WARM:])


def health(clients: Clients, server: Address) -> float:
    """The 99th percentile of seconds that /health takes while as many as may are being answered."""
    looking = clients.watch(server, LOAD_SECONDS)
    while not looking.done():
        clients.seconds(server, [BASE] * MOST, TOKENS)
    return statistics.quantiles(looking.result(), n=100, method="inclusive")[98]


def through_nginx(place: Place, clients: Clients, server: Address) -> Iterator[Found]:
    """Tokens a second of whole answers, the way in included, with nginx and a key and without, in turns."""
    with place.way_in() as door:
        took: dict[Address, list[float]] = {server: [], door: []}
        for _ in range(WARM + 2 * ROUNDS):
            for address, seconds in took.items():
                seconds.append(clients.seconds(address, [BASE] * MIXED, TOKENS))
    for name, address in (("ours_direct", server), ("ours_nginx", door)):
        yield name, MIXED * TOKENS / statistics.median(took[address][WARM:])


def next_tokens(server: Address, model: str) -> list[dict[str, float]]:
    """The likeliest tokens after each prompt of the proof, by their text, with their natural log-probabilities. One prompt at
    a time: a pass of so few tokens is for our own kernels."""
    wanted = {"model": model, "max_tokens": 1, "temperature": 0, "logprobs": LIKELIEST, "ignore_eos": True}
    found = []
    for prompt in prompts(PROOF_PROMPTS, PROOF_TOKENS, seed=0):
        answer = httpx.post(
            f"{server.url}/v1/completions", json={**wanted, "prompt": prompt}, timeout=60, trust_env=False
        )
        found.append(answer.raise_for_status().json()["choices"][0]["logprobs"]["top_logprobs"][0])
    return found


def memory() -> int:
    """Bytes in use on all GPUs."""
    return sum(gpu["memory_used"] or 0 for gpu in gpus())
