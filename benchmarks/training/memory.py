"""Peak memory by configuration, measured through the product's own trainer, beside what is predicted.

python -m benchmarks.training.memory REPOSITORY VALUES SHAPE...

VALUES is a JSON of a recipe's values, a SHAPE is BATCHxLENGTH; CAP_GIB lets the process have so much of the GPU only, as on a
smaller card. Prints a line of JSON for each shape.
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from services.trainer import attention
from services.trainer.child import Context
from services.trainer.curve import Curve
from services.trainer.methods import build_trainer
from services.trainer.model import attach_lora, choose_form, load_base
from shared import hub, memory, recipes, runs
from shared.schemas import Job, Recipe
from shared.settings import Settings
from shared.store import Store

STEPS = 3


def main(repository: str, values: dict[str, Any], shapes: list[str], hf_home: Path) -> None:
    recipe = recipes.resolve("standard", {"steps": STEPS, "save_every": 10 * STEPS, "accumulation": 1, **values})
    recipe = recipe.model_copy(update={"base_model": repository, "evaluate_every": None})
    data = Path(tempfile.mkdtemp())
    settings = Settings(data=data, hf_home=hf_home, base_model=repository, redis_url="redis://127.0.0.1:1/0")
    store = Store(settings.data)
    if cap := os.environ.get("CAP_GIB"):
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(float(cap) * 2**30 / total)
    context = fresh(settings, store, recipe)
    longest = max(int(shape.split("x")[1]) for shape in shapes)
    folder = hub.snapshot(repository, "main", hf_home)
    model, tokenizer = load_base(
        context, repository, "main", longest, recipe.precision, offload_embedding=recipe.offload_embedding
    )
    parts = {"weights": torch.cuda.memory_allocated()}
    model = attach_lora(model, recipe)
    parts["adapter"] = 2 * (torch.cuda.memory_allocated() - parts["weights"])
    attention.install(model)
    for shape in shapes:
        batch, length = map(int, shape.split("x"))
        context = fresh(settings, store, recipe)
        measure(
            context,
            recipe.model_copy(update={"batch_size": batch, "max_length": length}),
            model,
            tokenizer,
            parts,
            folder,
        )


def fresh(settings: Settings, store: Store, recipe: Recipe) -> Context:
    """A run of its own, which nothing has been told of yet."""
    spec = runs.create(store, runs.new_id("train"), "train", Job(dataset="d@1", recipe="standard"), recipe)
    return Context(settings, store, spec, 1)


def measure(context: Context, recipe: Recipe, model: Any, tokenizer: Any, parts: dict[str, int], folder: Path) -> None:
    """Three steps, and a line of JSON."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    rows = torch.randint(0, 199_000, (STEPS * recipe.batch_size, recipe.max_length)).tolist()
    examples = Dataset.from_dict({"input_ids": rows, "labels": rows})
    curve = Curve(context, recipe, recipe.batch_size * recipe.max_length)
    trainer = build_trainer(context, recipe, model, examples, examples.select([]), tokenizer, curve)
    trainer.train()
    state = [v for kept in trainer.optimizer.state.values() for v in kept.values() if isinstance(v, torch.Tensor)]
    config = json.loads((folder / "config.json").read_text())
    form = choose_form(folder, recipe.precision).form
    tokens = recipe.batch_size * recipe.max_length
    predicted = memory.predict(folder, config, recipe, form, tokens, on_gpu=True).model_dump()
    measured = {**parts, "optimizer": sum(v.nbytes for v in state), "reserved": torch.cuda.max_memory_reserved()}
    measured["allocated"] = torch.cuda.max_memory_allocated()
    del trainer
    speed = list(runs.all_events(context.store, context.spec.id, "metric"))[-1]["tokens_per_second"]
    changed = recipe.model_dump(include={"batch_size", "max_length", "lora_rank", "train_experts", "train_attention",
                                         "optimizer", "offload_embedding", "gradient_checkpointing"})  # fmt: skip
    print(
        json.dumps(
            {"recipe": changed, "form": form, "tokens_per_second": speed, "measured": measured, "predicted": predicted}
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:], Path(os.environ["HF_HOME"]))
