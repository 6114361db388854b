"""The rows of a JSON file that is one list, or one object around one list, read as a stream.

The values are built from ijson's plain events. Its ready-made `items` keeps the path of every open level, which grows
with the square of the depth: 200 KB of brackets would take gigabytes.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import repeat
from typing import BinaryIO

import ijson

from shared.datasets.canonical import MAX_DEPTH
from shared.datasets.errors import DatasetError

Events = Iterator[tuple[str, object]]
OPENS = {"start_map": dict, "start_array": list}
CLOSES = {"end_map", "end_array"}


def json_rows(file: BinaryIO, max_row: int) -> Iterator[tuple[object, str | None]]:
    """Yield (value, problem) for each entry of the list; `problem` is a reason to reject it, or None.

    At most `max_row` bytes may pass between two rows. Raises DatasetError, to be completed with the file's name, where
    the JSON breaks: what follows such a place cannot be read.
    """
    meter = _Meter(file, max_row)
    count = 0
    try:
        for value, problem in _rows(ijson.basic_parse(meter)):
            count, meter.since = count + 1, 0
            yield value, problem
    except ijson.JSONError as error:
        raise DatasetError(f"breaks after row {count:,}: {_explained(error)}") from error


class _Meter:
    """Hands a file to the parser and stops it when one row outgrows the limit."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.limit, self.since = file, limit, 0

    def read(self, size: int) -> bytes:
        if self.since > self.limit:
            raise DatasetError(f"has more than {self.limit:,} bytes in one row. Split or remove that row.")
        chunk = self.file.read(size)
        self.since += len(chunk)
        return chunk


def _explained(error: ijson.JSONError) -> str:
    detail = str(error).removeprefix("b'").replace("\\n", "\n").splitlines()[0]
    if "premature EOF" in detail:
        return "it ends in the middle of the JSON, so it is truncated. Export or upload it again."
    if "trailing garbage" in detail:
        return (
            "there is more after the end of the JSON. Put one object on each line (JSONL), or all rows into one list."
        )
    if "UTF8" in detail:
        return "it is not valid UTF-8. Save it as UTF-8."
    return f"it is not valid JSON ({detail}). Correct that place, or use JSONL, where only the broken row is rejected."


def _rows(events: Events) -> Iterator[tuple[object, str | None]]:
    opening, _ = next(events)
    if opening == "start_array":
        yield from _entries(events)
        yield from ((value, None) for _, value in events)  # lets the parser see what follows the list
        return
    chosen = name = None
    for event, value in events:
        if event == "map_key":
            name = value
        elif event == "start_map":
            _value(event, value, events)
        elif event == "start_array":
            skipped = 0  # a list without objects describes the data; it holds no rows
            for entry, problem in _entries(events):
                if name != chosen and not isinstance(entry, dict):
                    skipped += 1
                    continue
                if chosen not in (None, name):
                    raise DatasetError(f"has rows in two lists, '{chosen}' and '{name}'. Keep one list in a file.")
                if chosen is None:
                    yield from repeat((None, "it is not an object"), skipped)
                chosen = name
                yield entry, problem


def _entries(events: Events) -> Iterator[tuple[object, str | None]]:
    for event, value in events:
        if event == "end_array":
            return
        yield _value(event, value, events)


def _value(event: str, value: object, events: Events) -> tuple[object, str | None]:
    """The value that begins with `event`, without what is nested too deep in it, and the problem with it if any."""
    if event not in OPENS:
        return value, None
    stack, keys, too_deep, problem = [OPENS[event]()], [""], 0, None
    for event, value in events:
        if too_deep:
            too_deep += (event in OPENS) - (event in CLOSES)
        elif event == "map_key":
            keys[-1] = value
        elif event in CLOSES:
            keys.pop()
            done = stack.pop()
            if not stack:
                return done, problem
        elif event in OPENS and len(stack) == MAX_DEPTH:
            too_deep, problem = 1, f"it is nested deeper than {MAX_DEPTH} levels"
        else:
            new = OPENS[event]() if event in OPENS else float(value) if isinstance(value, Decimal) else value
            if isinstance(stack[-1], dict):
                stack[-1][keys[-1]] = new
            else:
                stack[-1].append(new)
            if event in OPENS:
                stack.append(new)
                keys.append("")
    raise AssertionError("the parser ended inside a value")
