"""Rows of whole examples: what one micro batch holds, with nothing padded between and no example cut."""

import math
from typing import Any

import torch
from datasets import Dataset
from trl import pack_dataset

from services.trainer.attention import ROW

LENGTHS = 8  # of rows that are not packed: few to compile for, with little padding at the end


def pack(examples: Dataset, tokens: int) -> Dataset:
    """Rows of at most `tokens` tokens made of whole examples, the longest first (best fit decreasing), with a column
    `seq_lengths` [examples]. No example may be longer than a row."""
    return pack_dataset(examples.select_columns(["input_ids", "labels"]), tokens, "bfd")


class Flat:
    """A collator: the rows of a batch one after the other in one row, each example with positions of its own.

    Gives input_ids, labels and position_ids, each [1, length]. On a GPU the length is always that of as many rows of `tokens`
    each where they are packed, else one of LENGTHS up to it: kernels are chosen and compiled for every new one. The first
    token of an example has no label: nothing before it could tell it."""

    def __init__(self, pad: int, tokens: int = ROW) -> None:
        self.pad, self.tokens = pad, tokens

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, labels, positions = [], [], []
        for row in rows:
            ids += row["input_ids"]
            start = 0
            for length in row.get("seq_lengths") or [len(row["input_ids"])]:
                labels += [-100, *row["labels"][start + 1 : start + length]]
                positions += range(length)
                start += length
        packed = any("seq_lengths" in row for row in rows)
        rest = -len(ids) % self._step(len(rows), packed) if torch.cuda.is_available() else 0
        columns = {
            "input_ids": ids + [self.pad] * rest,
            "labels": labels + [-100] * rest,
            "position_ids": positions + list(range(rest)),
        }
        return {name: torch.tensor([values]) for name, values in columns.items()}

    def _step(self, rows: int, packed: bool) -> int:
        full = rows * self.tokens
        return full if packed else ROW * math.ceil(full / LENGTHS / ROW)
