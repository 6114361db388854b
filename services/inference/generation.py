"""One answer while it is made: token ids come out of an engine, are parsed, counted and timed."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from services.inference import access, metrics
from services.inference.engine import Engine, Sampling, Weights
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
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.parser = Parser(self.encoder)
        for token in self.prompt[len(self.prompt) - self.begun :]:
            self.parser.feed(token)
        self.before = self.parser.message()
        self.ids: list[int] = []
        self.told = 0
        self.began = time.monotonic()
        self.first: float | None = None
        self.last = self.began
        self.state = "begun"  # then "done", or "failed"; one that is stopped stays as it is
        access.note(generation=self)

    def deltas(self) -> Iterator[Delta]:
        """What to send, in order: pieces of analysis, commentary and final."""
        for token in self.tokens():
            yield from self.parser.feed(token)
        yield from self.parser.finish()

    def message(self) -> dict[str, Any]:
        """The answer as a whole, without what it began with."""
        whole = self.parser.message()
        return {**whole, **{key: whole[key][len(self.before[key]) :] for key in ("content", "reasoning")}}

    def untold(self) -> list[int]:
        """The ids since the last call: each token in exactly one chunk, also where its text is held back."""
        ids, self.told = self.ids[self.told :], len(self.ids)
        return ids

    def tokens(self) -> Iterator[int]:
        try:
            for token in self.engine.generate(self.prompt, self.sampling, self.weights, self.stop, STOPS):
                before, self.last = self.last, time.monotonic()
                metrics.token(self.kind, self.last - before, first=self.first is None)
                self.first = self.first or self.last
                self.ids.append(token)
                yield token
        except Exception:
            self.state = "failed"
            raise
        if not self.stop.is_set():
            self.state = "done"

    def text(self) -> Iterator[str]:
        """The generated text as it is, for /v1/completions: whole characters, stop tokens left out."""
        shown = 0
        for _ in self.tokens():
            ids = self.ids[:-1] if self.ids[-1] in STOPS else self.ids
            whole = self.encoder.decode(ids)
            ready = whole.rstrip("\ufffd")  # the rest of that character is still to come
            yield ready[shown:]
            shown = max(shown, len(ready))

    @property
    def kind(self) -> metrics.Kind:
        """What answers: `base`, `adapter` or `export`."""
        if self.weights.adapter is not None:
            return "adapter"
        return "export" if self.weights.name.endswith(".gguf") else "base"

    @property
    def finish_reason(self) -> str:
        if self.ids and self.ids[-1] in STOPS:
            return "tool_calls" if self.parser.message()["tool_calls"] else "stop"
        return "length"

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": len(self.ids),
            "total_tokens": len(self.prompt) + len(self.ids),
        }

    def timings(self) -> dict[str, Any]:
        """In llama.cpp's names, milliseconds: the prompt's share ends with the first token."""
        first = (self.first or self.last) - self.began
        rest = self.last - self.began - first
        more = max(len(self.ids) - 1, 0)
        return {
            "prompt_n": len(self.prompt),
            "prompt_ms": round(first * 1000, 1),
            "predicted_n": len(self.ids),
            "predicted_ms": round(rest * 1000, 1),
            "predicted_per_second": round(more / rest, 1) if rest > 0 else None,
        }
