"""One answer while it is made: tokens come out of an engine, are parsed, counted and timed."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from services.inference import metrics
from services.inference.answer import Answer, Said
from services.inference.engine import Engine, Expired, Sampling, Token, Weights
from services.inference.stops import StopStrings
from shared.harmony import GENERATION_STOPS, Delta, Encoder

STOPS = (*GENERATION_STOPS, 199999)


@dataclass
class Generation:
    """A request on its way through an engine. Iterate it once; the counts are right after each step."""

    engine: Engine
    encoder: Encoder
    prompt: list[int]
    sampling: Sampling
    weights: Weights

    def __post_init__(self) -> None:
        self.tokens: list[Token] = []  # of the answer as far as it is made
        self.told = 0
        self.began = time.monotonic()
        self.first: float | None = None
        self.last = self.began
        self.state = "begun"  # then "done", or "failed"; one that is stopped stays as it is
        self._stream = self.engine.generate(self.prompt, self.sampling, self.weights)
        self._ahead: list[Token] | None = None

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    async def begin(self) -> None:
        """Wait for the first tokens: what goes wrong before them can still be told with a status. Raises as the engine."""
        self._ahead = await self._next()

    async def aclose(self) -> None:
        """Give the engine's place to others; does nothing after the end."""
        await self._stream.aclose()  # type: ignore[attr-defined]  # it is an asynchronous generator

    async def batches(self) -> AsyncIterator[list[Token]]:
        """The tokens as they come, several where the reader is slower than the engine."""
        if self._ahead is None:
            await self.begin()
        while self._ahead:
            yield self._ahead
            self._ahead = await self._next()

    async def said(self, answer: Answer) -> AsyncIterator[Said]:
        """What to send, in order: pieces of analysis, commentary and final, as `answer` makes them of the tokens."""
        async for tokens in self.batches():
            said: list[Said] = []
            for place, token in enumerate(tokens, 1):
                said += answer.feed(token.id, token.logprob or 0.0, token.top)
                if answer.over or answer.thought_enough:
                    await self._end_at(len(tokens) - place)
                    break
            if answer.thought_enough:
                self._go_on(answer.force())
            for part in _joined(said):
                yield part
        for part in _joined(answer.finish()):
            yield part

    async def text(self, stops: StopStrings) -> AsyncIterator[tuple[str, list[Token]]]:
        """The generated text as it is, for /v1/completions: whole characters, stop tokens left out; and the tokens of it
        that have not been told."""
        ids: list[int] = []  # of what was not told
        async for tokens in self.batches():
            ready = ""
            for place, token in enumerate(tokens, 1):
                ids += [token.id] if token.id not in self.sampling.stops else []
                text = self.encoder.decode(ids)
                if text and not text.endswith("\ufffd"):  # the rest of that character is still to come
                    ids = []
                    ready += stops.feed(text)
                if stops.found is not None:
                    await self._end_at(len(tokens) - place)
                    break
            if ready:
                yield ready, self.untold()
        if rest := stops.finish():
            yield rest, self.untold()

    def untold(self) -> list[Token]:
        """The tokens since the last call: each in exactly one chunk, also where its text is held back."""
        tokens, self.told = self.tokens[self.told :], len(self.tokens)
        return tokens

    async def _end_at(self, surplus: int) -> None:
        """Ask for no more, and forget the last `surplus` tokens: they came after the answer's end."""
        await self.aclose()
        self.tokens = self.tokens[: len(self.tokens) - surplus]

    def _go_on(self, ids: tuple[int, ...]) -> None:
        """Put `ids` into the answer, as if they had been generated, and have the engine go on after them."""
        self.tokens += [Token(id_) for id_ in ids]
        left = self.sampling.max_tokens - len(self.tokens)
        if left > 0:
            rest = replace(self.sampling, max_tokens=left, begun=self.sampling.begun + len(self.tokens))
            self._stream = self.engine.generate(self.prompt + self.ids, rest, self.weights)

    async def _next(self) -> list[Token]:
        """The next tokens, nothing at the end. Raises Expired, or what the engine raises."""
        limit = self.sampling.deadline
        try:
            async with asyncio.timeout(None if limit is None else self.began + limit - time.monotonic()):
                tokens = await anext(self._stream, [])
        except TimeoutError:
            self.state = "failed"
            raise Expired(limit or 0) from None
        except Exception:
            self.state = "failed"
            raise
        if not tokens:
            self.state = "done"
            return []
        before, self.last = self.last, time.monotonic()
        if not tokens[0].kept:
            metrics.tokens(self.kind, len(tokens), self.last - before, first=self.first is None)
        self.first = self.first or self.last
        self.tokens += tokens
        return tokens

    @property
    def kept(self) -> bool:
        """Whether what there is of it was generated for an earlier request."""
        return bool(self.tokens) and all(token.kept for token in self.tokens)

    @property
    def kind(self) -> metrics.Kind:
        """What answers: `base`, `adapter` or `export`."""
        if self.weights.adapter is not None:
            return "adapter"
        return "export" if self.weights.name.endswith(".gguf") else "base"

    def timings(self) -> dict[str, Any]:
        """In llama.cpp's names, milliseconds: the prompt's share ends with the first token."""
        first = (self.first or self.last) - self.began
        rest = self.last - self.began - first
        more = max(len(self.tokens) - 1, 0)
        return {
            "prompt_n": len(self.prompt),
            "prompt_ms": round(first * 1000, 1),
            "predicted_n": len(self.tokens),
            "predicted_ms": round(rest * 1000, 1),
            "predicted_per_second": round(more / rest, 1) if rest > 0 else None,
        }


def _joined(parts: list[Said]) -> list[Said]:
    """Text on the same channel, and arguments of the same call, in one piece each."""
    joined: list[Said] = []
    for part in parts:
        last, delta = (joined[-1].delta if joined else None), part.delta
        same = last and (last.channel, last.recipient, last.index) == (delta.channel, delta.recipient, delta.index)
        if last and same and bool(last.text or last.arguments):  # the delta that announces a call stays by itself
            whole = Delta(
                last.channel, last.text + delta.text, last.recipient, last.arguments + delta.arguments, last.index
            )
            joined[-1] = Said(whole, joined[-1].logprobs + part.logprobs)
        else:
            joined.append(part)
    return joined
