"""Server-sent events, read from the bytes of a response.

Lines end at a newline only: `iter_lines` of HTTP libraries also splits at U+2028 and its like, which JSON may hold.
Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `id` is the last that the stream has named so far."""

    type: str
    data: str
    id: str | None = None


def parse(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield each event that is complete; comments and a last one that was cut off are dropped."""
    kind, data, last = "message", [], None
    for line in _lines(chunks):
        if not line:
            if data:
                yield Event(kind, "\n".join(data), last)
            kind, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            kind = value
        elif field == "id":
            last = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
