"""Several inference servers over the same data directory: which of them is asked, and what is known of each."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0  # for a server to say how it is
READY_FIRST = ("ok", "leaving", "asleep", "loading")  # what a server says of itself; one that says nothing comes last


class Replica:
    """One inference server. `told` is what its /health said last, nothing while it cannot be reached; `busy` are the requests
    that it has in hand."""

    def __init__(self, url: str) -> None:
        self.url, self.name = url, urlsplit(url).netloc
        self.told: dict[str, Any] = {}
        self.busy = 0
        every = httpx.Limits(max_connections=None)  # the server lets them wait, not the client
        waits = httpx.Timeout(5, read=None)  # a reasoning model may think for long
        self._client = httpx.AsyncClient(base_url=url, limits=every, timeout=waits, trust_env=False)

    @property
    def ready(self) -> bool:
        return self.told.get("status") == "ok"

    @property
    def rank(self) -> tuple[int, int]:
        """The lower it is, the sooner it is asked: the ready ones first, of those the least busy."""
        status = self.told.get("status")
        return READY_FIRST.index(status) if status in READY_FIRST else len(READY_FIRST), self.busy

    async def look(self) -> None:
        """Ask it how it is. One that is too busy to say so is as it was."""
        try:
            told = (await self._client.get("/health", timeout=ANSWER_SECONDS)).json()
        except (httpx.ReadTimeout, httpx.PoolTimeout):
            return
        except (httpx.HTTPError, ValueError):
            told = {}
        self.told = told if isinstance(told, dict) else {}

    async def watch(self) -> None:
        """Look at it once a second until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def metrics(self) -> str:
        """Its exposition; empty while it cannot be reached."""
        try:
            answer = await self._client.get("/metrics", timeout=ANSWER_SECONDS)
        except httpx.HTTPError:
            return ""
        return answer.text if answer.is_success else ""

    @asynccontextmanager
    async def asked(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[httpx.Response]:
        """Its answer, which it has in hand as long as the context lasts: a stream of events to be read, anything else whole.

        Raises httpx.TransportError where it cannot be reached or breaks off before that."""
        self.busy += 1
        try:
            request = self._client.build_request(method, path, headers=dict(headers), content=body)
            answer = await self._client.send(request, stream=True)
            try:
                if not is_stream(answer):
                    await answer.aread()
                yield answer
            finally:
                await answer.aclose()
        except httpx.TransportError:
            self.told = {}  # until it is looked at again
            raise
        finally:
            self.busy -= 1


class Replicas:
    """All of them."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.all = [Replica(url) for url in urls]

    def in_order(self) -> list[Replica]:
        """Whom to ask first, and whom then. Of equals it is the same one each time: it may have the prompt's beginning."""
        return sorted(self.all, key=lambda replica: replica.rank)

    def health(self) -> dict[str, Any]:
        """What one server would tell: the best of them speaks for all; with the GPUs of all, and `replicas`, each by itself."""
        best = self.in_order()[0].told or {"status": "loading", "detail": "no inference server can be reached"}
        each = [{"url": one.url, "status": "away", "gpus": [], **one.told, "requests": one.busy} for one in self.all]
        return {**best, "gpus": [gpu for one in each for gpu in one["gpus"]], "replicas": each}

    async def look(self) -> None:
        """Ask all of them how they are."""
        await asyncio.gather(*(replica.look() for replica in self.all))

    async def watch(self) -> None:
        """Look at each of them until cancelled; one that is slow to answer keeps nobody from the others."""
        await asyncio.gather(*(replica.watch() for replica in self.all))


def is_stream(answer: httpx.Response) -> bool:
    """Whether it is a stream of events."""
    return answer.headers.get("content-type", "").startswith("text/event-stream")
