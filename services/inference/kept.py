"""Answers that were given before: who must be answered in the same way is answered from memory, token for token."""

import hashlib
import json
import pickle
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, replace

from services.inference import metrics
from services.inference.engine import Engine, Sampling, Token, Weights

OVERHEAD = 200  # bytes of an answer besides its tokens: the key, and its place in the order


class Answers:
    """Whole answers in at most `room` bytes. The one that was not asked for longest goes first."""

    def __init__(self, room: int) -> None:
        self.room, self.size = room, 0
        self._packed: OrderedDict[bytes, bytes] = OrderedDict()

    def find(self, key: bytes) -> list[Token] | None:
        """The tokens of an answer, each marked as kept; None where it is not there."""
        if (packed := self._packed.get(key)) is None:
            return None
        self._packed.move_to_end(key)
        return [Token(id_, logprob, top, kept=True) for id_, logprob, top in pickle.loads(packed)]

    def keep(self, key: bytes, tokens: list[Token]) -> None:
        """Keep a whole answer; one that is larger than all the room is not kept."""
        packed = pickle.dumps([(token.id, token.logprob, token.top) for token in tokens])
        if len(packed) + OVERHEAD > self.room:
            return
        self._forget(key)
        self._packed[key] = packed
        self.size += len(packed) + OVERHEAD
        while self.size > self.room:
            self._forget(next(iter(self._packed)))

    def _forget(self, key: bytes) -> None:
        if packed := self._packed.pop(key, None):
            self.size -= len(packed) + OVERHEAD


class Remembering:
    """An engine that gives an answer once more, where the request says that it is to be the same.

    That is so at temperature 0 and with a seed. Only what the engine ended itself is kept: an answer that was cut by an
    error, a deadline, a stop string or a client that left is none. Equal requests at the same time are each answered."""

    def __init__(self, engine: Engine, answers: Answers) -> None:
        self.engine, self.name, self.answers = engine, engine.name, answers

    async def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """As the seam says; an answer that was kept comes at once and as a whole."""
        key = _key(prompt, sampling, weights) if _repeats(sampling) else None
        if key:
            metrics.KEPT_QUERIES.inc()
            if found := self.answers.find(key):
                metrics.KEPT_HITS.inc()
                yield found
                return
        made: list[Token] = []
        async with aclosing(self.engine.generate(prompt, sampling, weights)) as stream:  # type: ignore[type-var]
            async for tokens in stream:
                made += tokens
                yield tokens
        if key:
            self.answers.keep(key, made)


def _repeats(sampling: Sampling) -> bool:
    """Whether the same request is to have the same answer. One without stops measures the speed, so it is always made."""
    return bool(sampling.stops) and (sampling.temperature <= 0 or sampling.seed is not None)


def _key(prompt: list[int], sampling: Sampling, weights: Weights) -> bytes:
    """What must be equal: the weights by their hash, the prompt, and all that decides which tokens are drawn."""
    decides = replace(sampling, deadline=None, seed=sampling.seed if sampling.temperature > 0 else None)
    asked = json.dumps([weights.sha256, asdict(decides)], sort_keys=True).encode()
    return hashlib.sha256(asked + b"\0" + array("q", prompt).tobytes()).digest()
