"""Those who ask: streams of OpenAI's API, in processes of their own, so that no one of them is what is measured."""

import functools
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.thread import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import httpx

from benchmarks.serving.speed import PROMPT, prompts
from services.trainer.timed import Answer, ask

PER_PROCESS = 32  # streams; a process reads 20,000 events a second and more
PAUSE = 0.01  # seconds between two looks at /health


@dataclass(frozen=True)
class Address:
    """A server, and the key to it if it asks for one."""

    url: str
    key: str | None = None


class Clients:
    """Processes that ask, for up to `streams` answers at once; they end with the block."""

    def __init__(self, streams: int) -> None:
        spawned = get_context("spawn")
        count = -(-streams // PER_PROCESS)
        self.askers = [ProcessPoolExecutor(1, mp_context=spawned) for _ in range(count)]
        self.watcher = ProcessPoolExecutor(1, mp_context=spawned)

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: Any) -> None:
        for process in [*self.askers, self.watcher]:
            process.shutdown(cancel_futures=True)

    def seconds(self, address: Address, models: list[str], tokens: int, prompt: int = PROMPT) -> float:
        """From the first request to the end of the last answer, where each of `models` is asked once, all at the same time,
        for `tokens` tokens after a prompt of `prompt`. Raises NoAnswer."""
        asked = list(zip(models, prompts(len(models), prompt), strict=True))
        parts = [asked[at : at + PER_PROCESS] for at in range(0, len(asked), PER_PROCESS)]
        futures = [
            process.submit(_ask, address, part, tokens) for process, part in zip(self.askers, parts, strict=False)
        ]
        answers = [answer for future in futures for answer in future.result()]
        if short := [answer for answer in answers if answer.tokens != tokens]:
            raise RuntimeError(f"{len(short)} answers have not {tokens} tokens: the first has {short[0].tokens}.")
        return max(answer.last for answer in answers) - min(answer.asked for answer in answers)

    def watch(self, address: Address, seconds: float) -> "Future[list[float]]":
        """The seconds that each of many looks at /health takes, one after the other for so long."""
        return self.watcher.submit(_watch, address, seconds)


@functools.cache
def _client(address: Address) -> httpx.Client:
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=PER_PROCESS)
    return httpx.Client(base_url=address.url, headers=headers, limits=limits, timeout=600, trust_env=False)


def _ask(address: Address, asked: list[tuple[str, list[int]]], tokens: int) -> list[Answer]:
    client = _client(address)
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda one: ask(client, *one, tokens, lambda: None), asked))


def _watch(address: Address, seconds: float) -> list[float]:
    client, took, end = _client(address), [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        if client.get("/health").is_error:
            raise RuntimeError(f"{address.url}/health is not well under load.")
        took.append(time.monotonic() - began)
        time.sleep(PAUSE)
    return took
