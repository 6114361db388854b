"""The product's server, measured from outside: over HTTP, as everybody asks it."""

import statistics
from collections.abc import Iterator

from benchmarks.serving.clients import Address, Clients
from benchmarks.serving.place import BASE, Place
from benchmarks.serving.speed import ADAPTERS, MIXED, ROUNDS, STREAMS, TOKENS, WARM, decode
from shared.gpus import gpus

Found = tuple[str, float]
MOST = max(STREAMS)
LONG_PROMPT = 1000  # tokens
FIRST_TOKENS = 10  # how often the time to the first one is taken
LOAD_SECONDS = 6.0
MIXED_MODELS = [f"{ADAPTERS[n % len(ADAPTERS)]}@v1" for n in range(MIXED)]


def speeds(place: Place) -> Iterator[Found]:
    """Everything that takes one start: by streams, over adapters, first token, /health under load, through nginx."""
    place.prepare()
    with place.server("ours", TANDEM_SEQUENCES=str(MOST)) as (server, _), Clients(MOST) as clients:
        for streams in STREAMS:
            yield f"ours_{streams}", rate(clients, server, [BASE] * streams)
        yield "ours_adapters_8", rate(clients, server, MIXED_MODELS)
        yield "ours_ttft_ms", first_token(clients, server) * 1000
        yield "ours_health_ms", health(clients, server) * 1000
        yield from through_nginx(place, clients, server)


def start(place: Place) -> Iterator[Found]:
    """A start with the settings as they come, once kernels are compiled, and the GPU's memory when all adapters have answered."""
    place.prepare()
    before = memory()
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


def memory() -> int:
    """Bytes in use on all GPUs."""
    return sum(gpu["memory_used"] or 0 for gpu in gpus())
