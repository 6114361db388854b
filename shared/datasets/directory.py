"""A dataset's directory: written once, row by row, and read by page or as a whole.

data.jsonl       canonical rows, one a line
data.index       the byte offset in data.jsonl of every 1,000th row, one a line
rejected.jsonl   {"line", "reason", "text"} for each row that was not accepted
card.json        see `Card`
original<ext>    the uploaded file, where there was one
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.datasets.canonical import encode, messages_of
from shared.datasets.card import Card, Rows
from shared.datasets.formats import KINDS
from shared.datasets.statistics import Statistics

STRIDE = 1000
EXCERPT = 500


class Writer:
    """Writes a directory that does not exist yet; on an exception it takes away what it wrote.

    Use it as a context manager. Raises FileExistsError when `destination` is there already.
    """

    def __init__(self, destination: Path, count_tokens: Callable[[dict], int] | None = None) -> None:
        self.directory, self.count_tokens = destination, count_tokens
        self.rows, self.statistics = Rows(), Statistics()
        self.hash, self.bytes = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        self.data = (self.directory / "data.jsonl").open("wb")
        self.index = (self.directory / "data.index").open("w")
        self.rejected = (self.directory / "rejected.jsonl").open("w", encoding="utf-8", errors="replace")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for file in (self.data, self.index, self.rejected):
            file.close()
        if kind:
            shutil.rmtree(self.directory)

    def accept(self, row: dict, notes: Iterable[str] = ()) -> None:
        """Append a canonical row. Raises RowError, and writes nothing, when it cannot be encoded."""
        line = encode(row)
        tokens = self.count_tokens(row) if self.count_tokens else None
        if self.rows.accepted % STRIDE == 0:
            self.index.write(f"{self.bytes}\n")
        self.data.write(line + b"\n")
        self.hash.update(line + b"\n")
        self.bytes += len(line) + 1
        self.rows.read, self.rows.accepted = self.rows.read + 1, self.rows.accepted + 1
        self.statistics.add(row, hashlib.sha256(line).digest(), tokens)
        self.statistics.warnings.update(notes)

    def reject(self, line: int, reason: str, text: str) -> None:
        """Record a row that was read and not accepted."""
        self.rows.read, self.rows.rejected = self.rows.read + 1, self.rows.rejected + 1
        self.rejected.write(
            json.dumps({"line": line, "reason": reason, "text": text[:EXCERPT]}, ensure_ascii=False) + "\n"
        )

    def finish(self, *, format: str, **fields: object) -> Card:
        """Write and return the card; the kind of the rows follows from `format`, `fields` are not counted here."""
        for file in (self.data, self.index, self.rejected):
            file.flush()
        self.rows.duplicate = self.statistics.duplicates()
        sha256 = self.hash.hexdigest()
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        counted = {"rows": self.rows, "sha256": sha256, "version": sha256[:12], "bytes": self.bytes, "created": created}
        card = Card(**counted, **self.statistics.figures(), kind=KINDS[format], format=format, **fields)
        card.save(self.directory)
        return card


def stream(directory: Path) -> Iterator[dict]:
    """Yield every canonical row of a dataset in its order."""
    with (directory / "data.jsonl").open("rb") as file:
        yield from map(json.loads, file)


def rows(directory: Path, offset: int = 0, limit: int = 50, query: str | None = None) -> tuple[list[dict], int]:
    """A page of a dataset: (up to `limit` rows from the `offset`-th match on, number of all matches).

    Each row carries its place in the dataset, from 0, as "index". With a `query` those rows match whose text, thinking,
    names or tool calls contain it, whatever the case; that reads the whole file, a page without one does not.
    """
    if offset < 0 or limit < 0:
        raise ValueError(f"A page starts at 0 or later and has 0 rows or more, not offset {offset}, limit {limit}.")
    if query:
        return _search(directory, offset, limit, query.lower())
    total = Card.load(directory).rows.accepted
    if offset >= total:
        return [], total
    with (directory / "data.index").open() as index:
        start = int(next(islice(index, offset // STRIDE, None)))
    with (directory / "data.jsonl").open("rb") as file:
        file.seek(start)
        page = list(islice(file, offset % STRIDE, offset % STRIDE + limit))
    return [{"index": offset + n} | json.loads(line) for n, line in enumerate(page)], total


def _search(directory: Path, offset: int, limit: int, query: str) -> tuple[list[dict], int]:
    written = json.dumps(query, ensure_ascii=False)[1:-1]  # as it stands in the file
    page, total = [], 0
    with (directory / "data.jsonl").open(encoding="utf-8") as file:
        for index, line in enumerate(file):
            if written not in line.lower():
                continue
            row = json.loads(line)
            if not any(query in text.lower() for text in _texts(row)):
                continue
            if offset <= total < offset + limit:
                page.append({"index": index} | row)
            total += 1
    return page, total


def _texts(row: dict) -> Iterator[str]:
    if "text" in row:
        yield row["text"]
    for message in messages_of(row):
        yield from (message[key] for key in ("content", "thinking", "name") if key in message)
        for call in message.get("tool_calls", ()):
            yield call["function"]["name"]
            yield json.dumps(call["function"]["arguments"], ensure_ascii=False)
