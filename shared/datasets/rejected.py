"""The rows of a file that were not accepted: read by page, searched, and counted by the kind of their reason."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from shared.datasets.canonical import KNOWN_KEYS
from shared.datasets.formats import COLUMNS

PLACE = re.compile(r"^(?:(.+?) )??(?:line|row) \d+: ")
PARTICULAR = re.compile(r"'[^']*'|\([^()]*\)|\b\d[\d,]*\b")
NAMED = COLUMNS | KNOWN_KEYS | {"tools", "reasoning_effort"}  # our own words, the same in every row


def rejected(
    directory: Path, offset: int = 0, limit: int = 50, query: str = "", kind: str = ""
) -> tuple[list[dict], int]:
    """A page of a dataset's rejected rows, `{"line", "reason", "text"}` each, and how many match in all.

    Those match whose reason or text contains `query`, whatever the case, and whose reason is of `kind` (see `kinds`).
    """
    if not query and not kind:
        with (directory / "rejected.jsonl").open("rb") as file:
            return [json.loads(line) for line in islice(file, offset, offset + limit)], sum(kinds(directory).values())
    page, total = [], 0
    for row in _all(directory):
        if kind and kind_of(row["reason"]) != kind:
            continue
        if query.lower() not in f"{row['reason']}\n{row['text']}".lower():
            continue
        if offset <= total < offset + limit:
            page.append(row)
        total += 1
    return page, total


def kinds(directory: Path) -> Counter[str]:
    """How many rows were rejected for each kind of reason, the most frequent first."""
    return _kinds(directory / "rejected.jsonl", (directory / "rejected.jsonl").stat().st_mtime_ns)


def kind_of(reason: str) -> str:
    """A reason without its place and without what is particular to one row: numbers, quoted words, remarks."""
    return PARTICULAR.sub(lambda found: found[0] if found[0][1:-1] in NAMED else "…", without_place(reason))[:120]


def without_place(reason: str) -> str:
    """A reason without "line 4: " in front; the name of the shard, where there are several, stays."""
    return PLACE.sub(lambda found: f"{found[1]}: " if found[1] else "", reason, count=1)


@lru_cache(maxsize=64)  # a dataset never changes
def _kinds(file: Path, _changed: int) -> Counter[str]:
    counts = Counter(kind_of(row["reason"]) for row in _all(file.parent))
    return Counter(dict(counts.most_common()))


def _all(directory: Path) -> Iterator[dict]:
    with (directory / "rejected.jsonl").open("rb") as file:
        yield from map(json.loads, file)
