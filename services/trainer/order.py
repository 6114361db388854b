"""The order in which a run sees its examples, over all its passes: the seed's alone, whoever trains and from whichever step."""

import itertools
from collections.abc import Iterator

import torch
from datasets import Dataset
from pyarrow.compute import list_value_length
from transformers.trainer_pt_utils import get_length_grouped_indices

from shared.schemas import Recipe


def in_order(dataset: Dataset, recipe: Recipe, steps: int) -> Dataset:
    """The examples of `steps` optimizer steps, one after the other: each pass over `dataset` shuffled anew, and with
    `packing` examples of like length next to each other.

    Drawn before training rather than while it goes on, so that neither a resume nor the number of GPUs changes it."""
    step = recipe.batch_size * recipe.accumulation
    lengths = list_value_length(dataset.data.column("input_ids")).to_pylist() if recipe.packing else None
    return dataset.select(list(itertools.islice(_passes(len(dataset), lengths, step, recipe.seed), steps * step)))


def _passes(examples: int, lengths: list[int] | None, step: int, seed: int) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        if lengths:
            yield from get_length_grouped_indices(lengths, step, generator=generator)
        else:
            yield from torch.randperm(examples, generator=generator).tolist()
