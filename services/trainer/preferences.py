"""Pairs of answers for DPO: as columns of token ids, as examples, and which answer a model prefers.

Source of the method: Rafailov et al., Direct Preference Optimization, https://arxiv.org/abs/2305.18290.
"""

from typing import Any

import torch
from datasets import Dataset, Features, Sequence, Value

from shared.harmony import IGNORED, Example

FEATURES = Features({name: Sequence(Value("int32")) for name in ("prompt_ids", "chosen_ids", "rejected_ids")})


def columns(chosen: Example, rejected: Example) -> dict[str, list[int]]:
    """A pair as `DataCollatorForPreference` takes it. Both examples begin with the prompt, which is what is not learned."""
    prompt = next(place for place, label in enumerate(chosen.labels) if label != IGNORED)
    return {
        "prompt_ids": chosen.ids[:prompt],
        "chosen_ids": chosen.ids[prompt:],
        "rejected_ids": rejected.ids[prompt:],
    }


def side(row: dict[str, list[int]], name: str) -> dict[str, list[int]]:
    """One side of a pair, "chosen" or "rejected", as an example {"input_ids", "labels"}."""
    prompt, answer = row["prompt_ids"], row[f"{name}_ids"]
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def as_examples(dataset: Dataset, name: str = "chosen") -> Dataset:
    """A few pairs as examples: the side `name` of each. A data set of examples is given back as it is."""
    if "prompt_ids" not in dataset.column_names:
        return dataset
    return Dataset.from_list([side(row, name) for row in dataset])


@torch.no_grad()
def likelihoods(model: torch.nn.Module, dataset: Dataset, name: str) -> torch.Tensor:
    """Log-probability, in nats, that the model gives to the side `name` of each pair: (pairs,) in fp32 on the CPU."""
    device = next(model.parameters()).device
    found = []
    for row in dataset:
        example = side(row, name)
        ids, labels = (torch.tensor(example[key], device=device) for key in ("input_ids", "labels"))
        where = labels[1:] != IGNORED
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1][where].float()
        found.append(-torch.nn.functional.cross_entropy(logits, labels[1:][where].long(), reduction="sum").cpu())
    return torch.stack(found)


def preference(model: Any, dataset: Dataset) -> dict[str, float]:
    """How far the adapter moved the model towards the chosen answers, over the pairs of `dataset`: {"pairs", "preferred",
    "chosen_moved", "rejected_moved"}.

    `preferred` is the share of pairs in which the chosen answer gained more log-probability over the base than the
    rejected one (TRL's reward accuracy); the others are the mean gains in nats."""
    gains = {}
    for name in ("chosen", "rejected"):
        tuned = likelihoods(model, dataset, name)
        with model.disable_adapter():
            gains[name] = tuned - likelihoods(model, dataset, name)
    return {
        "pairs": len(dataset),
        "preferred": float((gains["chosen"] > gains["rejected"]).float().mean()),
        "chosen_moved": float(gains["chosen"].mean()),
        "rejected_moved": float(gains["rejected"].mean()),
    }
