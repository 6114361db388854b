"""The baseline: Unsloth as its documentation uses it, without a recipe, events, checkpoints or data.

python -m benchmarks.training.bare FOLDER SHAPE...

A shape is BATCHxACCUMULATIONxLENGTH, of random tokens, or `mix` for the long-tailed mix, padded, in batches of 2x8. Prints a
line of JSON for each: {"shape", "tokens_per_second", "reserved_gib", "first_step_s"}; padding is not counted.
"""

import os

os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
import unsloth  # noqa: F401, I001

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from unsloth import FastLanguageModel

from benchmarks.training.mix import lengths

STEPS, WARM, RANK, LONGEST = 6, 2, 8, 4096
Batch = dict[str, torch.Tensor]


def main(folder: Path, shapes: list[str]) -> None:
    model, _ = FastLanguageModel.from_pretrained(str(folder), max_seq_length=LONGEST, load_in_4bit=True)
    model.config.output_router_logits = False
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=2 * RANK,
        bias="none",
        target_modules="q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split(),  # the last three: the experts
        use_gradient_checkpointing="unsloth",
    )
    import bitsandbytes

    optimizer = bitsandbytes.optim.AdamW8bit([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    model.train()
    for shape in shapes:
        measure(model, optimizer, shape)


def measure(model: torch.nn.Module, optimizer: torch.optim.Optimizer, shape: str) -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    batches = of_mix() if shape == "mix" else of_shape(*map(int, shape.split("x")))
    speeds, first = [], None
    for _ in range(WARM + STEPS):
        began, tokens = time.monotonic(), 0
        step = batches()
        for batch in step:
            tokens += int((batch["labels"] != -100).sum())
            (model(**{k: v.cuda() for k, v in batch.items()}).loss / len(step)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        first = first or time.monotonic() - began
        speeds.append(tokens / (time.monotonic() - began))
    found = {"shape": shape, "tokens_per_second": statistics.median(speeds[WARM:]), "first_step_s": first}
    print(json.dumps({**found, "reserved_gib": torch.cuda.max_memory_reserved() / 2**30}), flush=True)


def of_shape(batch: int, accumulation: int, length: int) -> Callable[[], list[Batch]]:
    return lambda: [padded([length] * batch) for _ in range(accumulation)]


def of_mix() -> Callable[[], list[Batch]]:
    drawn = iter(lengths(16 * (WARM + STEPS)))
    return lambda: [padded([next(drawn) for _ in range(2)]) for _ in range(8)]


def padded(rows: list[int]) -> Batch:
    """Random tokens in rows of these lengths, as long as the longest."""
    mask = torch.arange(max(rows)) < torch.tensor(rows)[:, None]
    ids = torch.randint(0, 199_000, mask.shape)
    batch = {"input_ids": ids, "labels": ids.masked_fill(~mask, -100)}
    return batch if mask.all() else {**batch, "attention_mask": mask.long()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
