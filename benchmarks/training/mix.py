"""Conversations of 50 to 4,000 tokens, as people have them: many short ones, a few long (log-uniform, mean 900)."""

import json
import random
from pathlib import Path

SHORTEST, LONGEST = 50, 4000
AROUND = 16  # tokens that harmony puts around a question and its answer, about, beside the system message
WORDS = "the of and to in is that it was for on are as with they at be this from have or by one had not but what all".split()


def lengths(count: int, seed: int = 0) -> list[int]:
    """The lengths of `count` conversations in tokens."""
    chance = random.Random(seed)
    return [round(SHORTEST * (LONGEST / SHORTEST) ** chance.random()) for _ in range(count)]


def write(path: Path, tokens: list[int], system: int = 60) -> None:
    """A file of conversations of about that many tokens each; `system` is the system message's share."""
    chance = random.Random(1)
    with open(path, "w") as file:
        for number, length in enumerate(tokens):
            said = " ".join(chance.choice(WORDS) for _ in range(max(1, length - AROUND - system)))
            messages = [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": messages}) + "\n")
