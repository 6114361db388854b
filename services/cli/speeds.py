"""How the rows of a benchmark look in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from services.cli import show

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> Table:
    """A line for each model and concurrency; what a model that failed was told stands under its name."""
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    grid.add_column("model", overflow="fold")
    for name in ("at a\ntime", "first\ntoken", "95 %\nwithin", "tok/s\neach", "tok/s\ntogether"):
        grid.add_column(name, justify="right", no_wrap=True)
    if any(row.get("errors") for row in rows):
        grid.add_column("failed", justify="right", no_wrap=True)
    for row in rows:
        name = f"{row['model']}\n  {row['error']}" if row.get("error") else row["model"]
        grid.add_row(show.safe(name), *_cells(row)[: len(grid.columns) - 1])
    return grid


def line(row: Row) -> str:
    """A row as one line."""
    if not row.get("answered"):
        return f"{row['model']} did not answer: {row.get('error')}"
    parts = [
        f"{row['model']}, {row['concurrency']} at a time",
        f"first token {seconds(row.get('first_token'))}",
        f"{rate(row.get('tokens_per_second'))} tok/s each",
        f"{rate(row.get('tokens_per_second_all'))} together",
    ]
    return " · ".join([*parts, *([f"{row['errors']} failed: {row['error']}"] if row.get("errors") else [])])


def seconds(value: float | None) -> str:
    """A short time: 0.0123 -> "12 ms", 1.234 -> "1.23 s"."""
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def rate(value: float | None) -> str:
    """Tokens a second: one digit below a hundred."""
    return show.number(value, 1 if value is not None and value < 100 else 0)


def _cells(row: Row) -> list[str]:
    times = [seconds(row.get(name)) for name in ("first_token", "first_token_p95")]
    rates = [rate(row.get(name)) for name in ("tokens_per_second", "tokens_per_second_all")]
    return [
        show.number(row.get("concurrency")),
        *times,
        *rates,
        str(row["errors"]) if row.get("errors") else "",
    ]
