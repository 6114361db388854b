"""Server-sent events, read from the bytes of a response.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from shared.lines import Lines


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `id` is the last that the stream has named so far."""

    type: str
    data: str
    id: str | None = None


def parse(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield each event that is complete; comments and a last one that was cut off are dropped."""
    kind, data, last = "message", [], None
    lines = Lines()
    for line in chain.from_iterable(map(lines.feed, chunks)):
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
