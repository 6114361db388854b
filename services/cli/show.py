"""How things look in a terminal: consoles, numbers with units, tables, and text that cannot move the cursor."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160  # a pipe has no width; tables in it should not be folded to 80 columns
STATES = {"succeeded": "green", "failed": "red", "running": "cyan", "queued": "dim", "cancelled": "yellow"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# What is shown comes from files and models: markup and emoji codes in it are text.
_PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, **_PLAIN)
err = Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH, **_PLAIN)


def safe(text: object) -> str:
    """The text without control characters (a row or a model may hold escape sequences); newline and tab stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def raw(data: Any) -> None:
    """Print JSON for another program."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def state(name: str) -> Text:
    """A run's state in its colour."""
    return Text(safe(name), style=STATES.get(name, ""))


def number(value: float | None, digits: int = 0) -> str:
    """1234 -> "1,234"; None -> "–"."""
    return "–" if value is None else f"{value:,.{digits}f}"


def loss(value: float | None) -> str:
    """A loss to three decimals; None -> "–"."""
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """0.753 -> "75 %"; None -> "–"."""
    return "–" if value is None else f"{value:.0%}".replace("%", " %")


def size(count: float | None) -> str:
    """Bytes in the largest unit that leaves at least 1: 1536 -> "1.5 KiB"."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def span(seconds: float | None) -> str:
    """A duration in its two largest units: 3725 -> "1 h 02 min"."""
    if seconds is None:
        return "–"
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def moment(value: str | float | None) -> datetime | None:
    """An ISO 8601 time or seconds since 1970 as a time in UTC."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def age(value: str | float | None) -> str:
    """How long ago a moment was, in one unit: "3 min ago"."""
    then = moment(value)
    if then is None:
        return "–"
    seconds = (datetime.now(UTC) - then).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"


def between(first: str | None, last: str | None) -> str:
    """The time between two moments; up to now when the last is missing."""
    start = moment(first)
    return "–" if start is None else span(((moment(last) or datetime.now(UTC)) - start).total_seconds())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Print a table, or the sentence `empty` when it has no rows. A column named "#name" is right-aligned "name";
    one named "!name" is never folded."""
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        right, whole = name.startswith("#"), name.startswith("!")
        grid.add_column(
            name.lstrip("#!"), justify="right" if right else "left", no_wrap=right or whole, overflow="fold"
        )
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else safe("–" if cell is None else cell) for cell in row))
    out.print(grid if grid.row_count else empty)


def facts(pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns; those that are None or empty are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None and value != "" and value != []:
            grid.add_row(name, value if isinstance(value, Text) else safe(value))
    out.print(grid)


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as "a b c" -> text, for `facts`."""
    lines: dict[str, str] = {}
    for key, value in data.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            lines |= flat(value, f"{name} ")
        elif isinstance(value, list):
            lines[name] = ", ".join(
                json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else str(v) for v in value
            )
        elif isinstance(value, float):
            lines[name] = f"{value:.6g}"
        elif isinstance(value, bool):
            lines[name] = "yes" if value else "no"
        elif value is not None:
            lines[name] = f"{value:,}" if isinstance(value, int) else str(value)
    return lines


def bars(labels: Sequence[str], values: Sequence[float], notes: Sequence[str], width: int = 32) -> None:
    """Print horizontal bars, the longest `width` characters."""
    most = max([*values, 0]) or 1
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", style="dim", no_wrap=True)
    for label, value, note in zip(labels, values, notes, strict=True):
        bar = "█" * round(width * value / most) or ("▏" if value else "")
        grid.add_row(label, Text(bar, style="cyan"), note)
    out.print(grid)
