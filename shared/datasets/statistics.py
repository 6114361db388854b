"""Counting what is in a dataset while its rows pass by; eight bytes are kept for each row."""

import re
from array import array
from bisect import bisect_right
from collections import Counter

from shared.datasets.canonical import in_share, messages_of
from shared.datasets.card import Histogram, Reasoning, Splits, Tokens, Turns
from shared.datasets.languages import guess

TOKEN_EDGES = [0, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]
TURN_EDGES = [1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64]
VALIDATION_SHARE = 0.1
SPECIAL = re.compile(
    r"<\|(start|end|message|channel|constrain|return|call|refusal|startoftext|endoftext|endofprompt|reserved_\d+)\|>"
)
SPECIAL_NOTE = "rows whose text holds a special token such as <|start|>; it is learned as plain text"
OPEN_END_NOTE = "rows that do not end with an assistant message; what follows the last one teaches nothing"


class Tally:
    """Least, sum and most of a number, and its histogram."""

    def __init__(self, edges: list[int]) -> None:
        self.edges, self.counts = edges, [0] * len(edges)
        self.number, self.total, self.least, self.most = 0, 0, 0, 0

    def add(self, value: int) -> None:
        self.counts[max(bisect_right(self.edges, value) - 1, 0)] += 1
        self.least = min(self.least, value) if self.number else value
        self.most = max(self.most, value)
        self.number, self.total = self.number + 1, self.total + value

    @property
    def mean(self) -> float:
        return round(self.total / self.number, 2) if self.number else 0.0

    @property
    def histogram(self) -> Histogram:
        return Histogram(edges=self.edges, counts=self.counts)


class Statistics:
    """The figures of a card, from one `add` for each accepted row."""

    def __init__(self) -> None:
        self.rows = self.thinking = self.tools = self.validation = 0
        self.turns, self.tokens = Tally(TURN_EDGES), Tally(TOKEN_EDGES)
        self.languages, self.thinking_languages = Counter(), Counter()
        self.efforts, self.warnings = Counter(), Counter()
        self.seen = [array("Q") for _ in range(256)]

    def add(self, row: dict, digest: bytes, tokens: int | None) -> None:
        """Count one canonical row; `digest` is the SHA-256 of its line, `tokens` its length in tokens if known."""
        messages, text = messages_of(row), row.get("text", "")
        spoken = text or " ".join(m["content"][:400] for m in messages if m["role"] in ("user", "assistant"))
        thinking = " ".join(m["thinking"][:400] for m in messages if "thinking" in m)
        self.rows += 1
        self.seen[digest[8]].append(int.from_bytes(digest[:8]))
        self.validation += in_share(digest, VALIDATION_SHARE)
        self.turns.add(sum(m["role"] == "user" for m in messages))
        self.tools += "tools" in row or any("tool_calls" in m for m in messages)
        self.languages[guess(spoken)] += 1
        if thinking:
            self.thinking += 1
            self.thinking_languages[guess(thinking)] += 1
        if effort := row.get("reasoning_effort"):
            self.efforts[effort] += 1
        if tokens is not None:
            self.tokens.add(tokens)
        if SPECIAL.search(text) or any(
            SPECIAL.search(m["content"]) or SPECIAL.search(m.get("thinking", "")) for m in messages
        ):
            self.warnings[SPECIAL_NOTE] += 1
        if messages and messages[-1]["role"] != "assistant":
            self.warnings[OPEN_END_NOTE] += 1

    def duplicates(self) -> int:
        """Rows that repeat an earlier row exactly."""
        return sum(len(bucket) - len(set(bucket)) for bucket in self.seen)

    def figures(self) -> dict:
        """The fields of a Card that are counted."""
        turns = Turns(min=self.turns.least, mean=self.turns.mean, max=self.turns.most, histogram=self.turns.histogram)
        counted = self.tokens
        tokens = (
            Tokens(total=counted.total, mean=counted.mean, max=counted.most, histogram=counted.histogram)
            if counted.number
            else None
        )
        reasoning = Reasoning(
            rows=self.thinking,
            share=round(self.thinking / max(self.rows, 1), 4),
            by_effort=dict(self.efforts.most_common()),
            languages=_shares(self.thinking_languages),
        )
        splits = Splits(share=VALIDATION_SHARE, train=self.rows - self.validation, validation=self.validation)
        return {
            "turns": turns, "tokens": tokens, "languages": _shares(self.languages), "reasoning": reasoning,
            "tools": self.tools, "splits": splits, "warnings": dict(self.warnings.most_common(50)),
        }  # fmt: skip


def _shares(counts: Counter) -> dict[str, float]:
    total = counts.total()
    return {name: round(count / total, 4) for name, count in counts.most_common()}
