"""Two datasets become one, in a given proportion: by default three rows with reasoning to one that answers directly."""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from shared.datasets.card import Card
from shared.datasets.directory import Writer, stream
from shared.datasets.errors import DatasetError
from shared.datasets.formats import CANONICAL, COLUMNS_OF


def mix(
    reasoning_dir: Path,
    direct_dir: Path,
    destination: Path,
    *,
    share: float = 0.75,
    total: int | None = None,
    seed: int = 0,
    name: str,
    count_tokens: Callable[[dict], int] | None = None,
    licence: str = "",
    notes: str = "",
) -> Card:
    """Write `total` rows into the new directory `destination`: `share` of them from the first dataset, else the second.

    No row is taken twice; without `total` there are as many rows as both permit. Which rows are taken follows from
    `seed`; they keep their order and are spread evenly, so that every stretch has about the same proportion. The same
    arguments give the same version. Raises DatasetError when the two are the same, of two kinds, or have too few rows.
    """
    first, second = Card.load(reasoning_dir), Card.load(direct_dir)
    wanted = portions(first, second, share, total)
    picked = (
        _pick(stream(reasoning_dir), first.rows.accepted, wanted[0], random.Random(f"{seed} 0")),
        _pick(stream(direct_dir), second.rows.accepted, wanted[1], random.Random(f"{seed} 1")),
    )
    parents = [f"{card.name}@{card.version}" for card in (first, second)]
    licences = dict.fromkeys(filter(None, (first.licence, second.licence)))
    with Writer(destination, count_tokens) as writer:
        rows = sum(wanted)
        for n in range(rows):
            from_first = (n + 1) * wanted[0] // rows > n * wanted[0] // rows  # Bresenham's even spread
            writer.accept(next(picked[0 if from_first else 1]))
        if first.kind != "text" and not first.reasoning.rows:
            writer.statistics.warnings[f"rows taken as reasoning from {parents[0]}, which has no thinking"] = wanted[0]
        return writer.finish(
            name=name,
            format=CANONICAL[first.kind],
            file_format="jsonl",
            columns=list(COLUMNS_OF[first.kind]),
            source=f"mix of {' and '.join(parents)}",
            parents=parents,
            licence=licence or " + ".join(licences),
            notes=notes,
        )


def portions(first: Card, second: Card, share: float, total: int | None = None) -> tuple[int, int]:
    """How many rows a mix takes from each; without `total`, as many as both permit. Raises DatasetError: see `mix`."""
    if not 0 < share < 1:
        raise DatasetError(
            f"A mix with share {share} is no mix. Give the share of the first dataset as a number between 0 and 1."
        )
    if first.kind != second.kind:
        raise DatasetError(
            f"{first.name} holds {first.kind} and {second.name} holds {second.kind}: a data set has one kind of rows. "
            "Choose two of the same kind."
        )
    if first.sha256 == second.sha256:
        raise DatasetError(f"Both are the same {first.rows.accepted:,} rows, so there is nothing to mix. Choose two.")
    most = largest_total(first.rows.accepted, second.rows.accepted, share)
    have = f"{first.name} has {first.rows.accepted:,} rows and {second.name} {second.rows.accepted:,}"
    chosen = most if total is None else total
    if chosen > most:
        raise DatasetError(
            f"{have}: at a share of {share} they make {most:,} rows, not {total:,}. Ask for fewer or change the share."
        )
    if chosen < 1 or not 0 < round(chosen * share) < chosen:
        raise DatasetError(
            f"{have}: a mix of {chosen} rows at a share of {share} leaves nothing of one of them. Use more rows."
        )
    return round(chosen * share), chosen - round(chosen * share)


def largest_total(first_rows: int, second_rows: int, share: float) -> int:
    """The most rows that a mix may have when `share` of them, rounded, come from the first."""
    total = int(min((first_rows + 0.5) / share, (second_rows + 0.5) / (1 - share))) + 1
    while round(total * share) > first_rows or total - round(total * share) > second_rows:
        total -= 1
    return total


def _pick(rows: Iterator[dict], remaining: int, wanted: int, chance: random.Random) -> Iterator[dict]:
    """`wanted` of `remaining` rows in their order, each subset equally likely (Knuth, TAOCP 3.4.2, algorithm S)."""
    for row in islice(rows, remaining):
        if chance.random() * remaining < wanted:
            wanted -= 1
            yield row
        remaining -= 1
