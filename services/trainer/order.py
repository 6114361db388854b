"""The order in which a run sees its examples, over all its passes: the seed's alone, whoever trains and from whichever step."""

import itertools
from collections.abc import Iterator

import torch
from datasets import Dataset

from shared.schemas import Recipe


def in_order(dataset: Dataset, recipe: Recipe, steps: int) -> Dataset:
    """The examples, or packed rows, of `steps` optimizer steps, one after the other: each pass over `dataset` shuffled anew.

    Drawn before training rather than while it goes on, so that neither a resume nor the number of GPUs changes it."""
    count = steps * recipe.batch_size * recipe.accumulation
    return dataset.select(list(itertools.islice(_passes(len(dataset), recipe.seed), count)))


def _passes(examples: int, seed: int) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(examples, generator=generator).tolist()
