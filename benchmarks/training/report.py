"""training.json, a row for each name, and the tables made of it."""

import json
from typing import Any

from benchmarks import rows
from benchmarks.rows import FOLDER

JSON = FOLDER / "training.json"
HEAD = """# Training gpt-oss-20b

Made by `python -m benchmarks.training`. The weights are random and of the real shapes: speed and memory depend on the shapes.
Tokens are useful ones, padding is not counted. Each ratio is of two measurements in one run on one machine, after the first steps,
in which kernels are compiled: ours over all steps with what is written between them, the baseline's median step.
Bare is Unsloth as its documentation uses it: a loop around the model, random tokens.

"""


def write() -> None:
    """training.md, of training.json and memory.json."""
    text = HEAD + rows.table(rows.read(JSON))
    if (FOLDER / "memory.json").exists():
        text += footprints(json.loads((FOLDER / "memory.json").read_text()))
    (FOLDER / "training.md").write_text(text)


def footprints(found: list[dict[str, Any]]) -> str:
    """The table of peaks: what PyTorch reserved, and what `shared.memory` says."""
    lines = [
        "\n## Peak memory\n\nWhat PyTorch reserved at the peak of three steps through the product's own trainer, and what "
        "`shared/memory.py` predicts (CUDA's own share left out), GiB.\n",
        "| batch × length | rank | experts | optimizer | embedding | weights | adapter | optimizer | rest | reserved | predicted | off by |",
        "|---|---:|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        recipe, measured, predicted = one["recipe"], one["measured"], one["predicted"]
        total = predicted["total"] - predicted["runtime"]
        own = [measured[part] for part in ("weights", "adapter", "optimizer")]
        values = [*own, measured["reserved"] - sum(own), measured["reserved"], total]
        lines.append(
            f"| {recipe['batch_size']} × {recipe['max_length']:,} | {recipe['lora_rank']} | "
            f"{'yes' if recipe['train_experts'] else 'no'} | {recipe['optimizer']} | "
            f"{'off the GPU' if recipe['offload_embedding'] else 'on it'} | "
            + " | ".join(f"{value / 2**30:.2f}" for value in values)
            + f" | {total / measured['reserved'] - 1:+.1%} |"
        )
    return "\n".join(lines) + "\n"
