"""How values are written on the pages."""

from datetime import datetime
from typing import Any

from flask import Flask


def register(app: Flask) -> None:
    for name, filter_ in (
        ("bytes", size),
        ("ago", ago),
        ("share", share),
        ("number", number),
        ("span", span),
        ("percent", percent),
        ("short", short),
        ("called", called),
        ("measured", measured),
        ("brief", brief),
        ("rate", rate),
    ):
        app.add_template_filter(filter_, name)


def size(value: float | None) -> str:
    """Bytes: `1536` -> `1.5 KiB`."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def ago(moment: str | None) -> str:
    """A moment in ISO 8601 as `3 min ago`; the page shows the moment itself on hover, in the reader's zone."""
    if not moment:
        return "–"
    then = datetime.fromisoformat(moment)
    seconds = max(0.0, (datetime.now(then.tzinfo) - then).total_seconds())
    for unit_seconds, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_seconds:
            return f"{seconds // unit_seconds:.0f} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds:.0f} s ago"


def span(seconds: float | None) -> str:
    """A duration: `95` -> `2 min`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def brief(seconds: float | None) -> str:
    """A short time: 0.0123 -> `12 ms`, 1.234 -> `1.23 s`."""
    if seconds is None:
        return "–"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def rate(value: float | None) -> str:
    """Tokens a second: one digit below a hundred."""
    return number(value, 1 if value is not None and value < 100 else 0)


def share(run: dict[str, Any]) -> float:
    """How much of a run's steps is done, from 0 to 1."""
    return min(1.0, run["step"] / run["steps"]) if run["steps"] else 0.0


def number(value: float | None, digits: int = 0) -> str:
    """`12345` -> `12,345`; nothing known is a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """`0.75` -> `75 %`."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def short(digest: str | None) -> str:
    """The first twelve digits of a hash."""
    return (digest or "")[:12]


def measured(run: dict[str, Any]) -> str:
    """What a benchmark measures: the model, or how many."""
    return run["models"][0] if len(run["models"]) == 1 else f"{len(run['models'])} models"


def called(run: dict[str, Any]) -> str:
    """What a person calls a run: the adapter it makes, or what it does to which."""
    match run["kind"]:
        case "export":
            return f"{run['adapter']} as {run['encoding']}"
        case "evaluate":
            return f"{run['adapter']} against its base"
        case "fetch":
            return run["repository"]
        case "benchmark":
            return f"Speed of {measured(run)}"
        case _:
            return run["name"] or run["id"]
