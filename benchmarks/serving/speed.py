"""What is measured of every engine alike: prompts of random tokens, and the tokens a second of decoding."""

import json
import random
import statistics
from collections.abc import Callable

STREAMS = (1, 8, 32, 128)
PROMPT = TOKENS = 128  # tokens in, tokens out
MIXED = 32  # streams, over adapters that take turns
ADAPTERS, RANK = tuple(f"benchmark-{number}" for number in range(8)), 16
PROOF_PROMPTS, PROOF_TOKENS = 16, 64  # after which vLLM's next token is compared with that of transformers and PEFT
WARM, ROUNDS = 1, 5  # in a warm round kernels are compiled, and adapters read
MOST_WARM, STEADY = 15, 0.2  # warm rounds at most, until two take the same within a fifth
VOCABULARY = 199_000  # ids below are plain text

Timed = Callable[[int], float]  # seconds in which all streams get answers of so many tokens


def prompts(count: int, length: int = PROMPT, seed: int | None = None) -> list[list[int]]:
    """Token ids; without a `seed` they are new each time, so that none is found in a prefix cache."""
    draw = random.Random(seed)
    return [[draw.randrange(VOCABULARY) for _ in range(length)] for _ in range(count)]


def decode(seconds: Timed, streams: int) -> float:
    """Tokens a second of all streams together, after the first of each: what answers of TOKENS tokens take longer than those of
    one, the medians of the rounds after the warm ones."""

    def round_() -> tuple[float, float]:
        return seconds(1), seconds(TOKENS)

    warm = [round_(), round_()]
    while len(warm) < MOST_WARM and not alike(*warm[-2:]):
        warm.append(round_())
    first, whole = zip(*(round_() for _ in range(ROUNDS)), strict=True)
    return (TOKENS - 1) * streams / (statistics.median(whole) - statistics.median(first))


def alike(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Whether two rounds took the same. vLLM's Triton kernels are compiled when a number of tokens first asks for them, which is in
    any of the first rounds, and takes longer than the round."""
    return all(abs(a - b) <= STEADY * min(a, b) for a, b in zip(before, now, strict=True))


def tell(name: str, value: float) -> None:
    """A measurement as a line of JSON, which a parent process reads."""
    print(json.dumps({"name": name, "value": value}), flush=True)
