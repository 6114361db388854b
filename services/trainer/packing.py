"""Rows of whole examples: what one micro batch holds, with nothing padded between and no example cut."""

from typing import Any

import torch
from datasets import Dataset
from trl import pack_dataset

from services.trainer.attention import ROW


def pack(examples: Dataset, tokens: int) -> Dataset:
    """Rows of at most `tokens` tokens made of whole examples, the longest first (best fit decreasing), with a column
    `seq_lengths` [examples]. No example may be longer than a row."""
    return pack_dataset(examples.select_columns(["input_ids", "labels"]), tokens, "bfd")


class Flat:
    """A collator: the rows of a batch one after the other in one row, each example with positions of its own.

    Gives input_ids, labels and position_ids, each [1, length]. The length is a multiple of ROW on a GPU, and of packed rows
    of `tokens` each always the same: another one would have the kernels compiled again. The first token of an example has no
    label: nothing before it could tell it."""

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
        full = len(rows) * self.tokens if packed else ROW
        rest = -len(ids) % full if torch.cuda.is_available() else 0
        columns = {
            "input_ids": ids + [self.pad] * rest,
            "labels": labels + [-100] * rest,
            "position_ids": positions + list(range(rest)),
        }
        return {name: torch.tensor([values]) for name, values in columns.items()}
