"""A data set and one conversation more: how single conversations worth learning are collected."""

from collections.abc import Callable
from pathlib import Path

from shared.datasets.canonical import conversation, encode
from shared.datasets.card import Card
from shared.datasets.directory import Writer, stream
from shared.datasets.errors import DatasetError, RowError

MOST_ROWS = 20_000  # all of them are written and counted again for each one that is added


def canonical(messages: object, effort: str | None = None) -> dict:
    """The canonical row of a conversation. Raises DatasetError with the reason when nothing can be learned from it."""
    try:
        row = conversation(messages, effort=effort, notes=set())
        encode(row)
    except RowError as error:
        raise DatasetError(f"This conversation cannot be a row of a data set: {error}.") from None
    return row


def holds(directory: Path, row: dict) -> bool:
    """Whether a canonical row is in a data set, the same to the letter."""
    line = encode(row)
    return any(encode(other) == line for other in stream(directory))


def append(
    parent: Path | None,
    row: dict,
    destination: Path,
    *,
    name: str,
    source: str,
    count_tokens: Callable[[dict], int] | None = None,
    notes: str = "",
) -> Card:
    """Write the rows of `parent`, if there is one, and the canonical `row` into the new directory `destination`.

    Raises DatasetError when the parent is too large for that or holds no conversations, or when the row cannot be
    rendered."""
    before = Card.load(parent) if parent else None
    if before and before.kind != "conversations":
        raise DatasetError(
            f"{name} is a data set of {before.kind}; a conversation cannot be added to it. Take another name."
        )
    if before and before.rows.accepted >= MOST_ROWS:
        raise DatasetError(
            f"{name} has {before.rows.accepted:,} rows; single conversations are added to at most {MOST_ROWS:,}. "
            "Collect them under another name, and mix the two."
        )
    with Writer(destination, count_tokens) as writer:
        for known in stream(parent) if parent else ():
            writer.accept(known)
        try:
            writer.accept(row)
        except RowError as error:
            raise DatasetError(f"This conversation cannot be a row of a data set: {error}.") from None
        return writer.finish(
            name=name,
            format="messages",
            file_format="jsonl",
            columns=["messages", "tools", "reasoning_effort"],
            source=source,
            parents=[f"{before.name}@{before.version}"] if before else [],
            licence=before.licence if before else "",
            notes=notes,
        )
