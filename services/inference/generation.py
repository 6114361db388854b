"""One answer while it is made: tokens come out of an engine, are parsed, counted and timed."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from services.inference import access, metrics
from services.inference.engine import Engine, Expired, Sampling, Token, Weights
from shared.harmony import GENERATION_STOPS, Delta, Encoder, Parser

STOPS = (*GENERATION_STOPS, 199999)


@dataclass
class Generation:
    """A request on its way through an engine. Iterate it once; the counts are right after each step."""

    engine: Engine
    encoder: Encoder
    prompt: list[int]
    sampling: Sampling
    weights: Weights
    begun: int = 0  # tokens at the prompt's end that are the beginning of the answer: not sent again

    def __post_init__(self) -> None:
        self.parser = Parser(self.encoder)
        for token in self.prompt[len(self.prompt) - self.begun :]:
            self.parser.feed(token)
        self.before = self.parser.message()
        self.tokens: list[Token] = []
        self.told = 0
        self.began = time.monotonic()
        self.first: float | None = None
        self.last = self.began
        self.state = "begun"  # then "done", or "failed"; one that is stopped stays as it is
        self._stream = self.engine.generate(self.prompt, self.sampling, self.weights)
        self._ahead: list[Token] | None = None
        access.note(generation=self)

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

    async def deltas(self) -> AsyncIterator[Delta]:
        """What to send, in order: pieces of analysis, commentary and final."""
        async for tokens in self.batches():
            for delta in _joined([delta for token in tokens for delta in self.parser.feed(token.id)]):
                yield delta
        for delta in self.parser.finish():
            yield delta

    async def text(self) -> AsyncIterator[str]:
        """The generated text as it is, for /v1/completions: whole characters, stop tokens left out."""
        ids: list[int] = []  # of what was not told
        async for tokens in self.batches():
            ids += [token.id for token in tokens if token.id not in self.sampling.stops]
            text = self.encoder.decode(ids)
            if text and not text.endswith("\ufffd"):  # the rest of that character is still to come
                yield text
                ids = []

    def message(self) -> dict[str, Any]:
        """The answer as a whole, without what it began with."""
        whole = self.parser.message()
        return {**whole, **{key: whole[key][len(self.before[key]) :] for key in ("content", "reasoning")}}

    def untold(self) -> list[Token]:
        """The tokens since the last call: each in exactly one chunk, also where its text is held back."""
        tokens, self.told = self.tokens[self.told :], len(self.tokens)
        return tokens

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
        metrics.tokens(self.kind, len(tokens), self.last - before, first=self.first is None)
        self.first = self.first or self.last
        self.tokens += tokens
        return tokens

    @property
    def kind(self) -> metrics.Kind:
        """What answers: `base`, `adapter` or `export`."""
        if self.weights.adapter is not None:
            return "adapter"
        return "export" if self.weights.name.endswith(".gguf") else "base"

    @property
    def finish_reason(self) -> str:
        if self.tokens and self.tokens[-1].id in self.sampling.stops:
            return "tool_calls" if self.parser.message()["tool_calls"] else "stop"
        return "length"

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": len(self.tokens),
            "total_tokens": len(self.prompt) + len(self.tokens),
        }

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


def _joined(deltas: list[Delta]) -> list[Delta]:
    """Text on the same channel, and arguments of the same call, in one piece each."""
    joined: list[Delta] = []
    for delta in deltas:
        last = joined[-1] if joined else None
        same = last and (last.channel, last.recipient, last.index) == (delta.channel, delta.recipient, delta.index)
        if last and same and bool(last.text or last.arguments):  # the delta that announces a call stays by itself
            joined[-1] = Delta(
                last.channel, last.text + delta.text, last.recipient, last.arguments + delta.arguments, last.index
            )
        else:
            joined.append(delta)
    return joined
