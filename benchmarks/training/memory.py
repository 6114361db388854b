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

from benchmarks.training.ours import NOWHERE
from services.trainer import attention
from services.trainer.child import Context
from services.trainer.curve import Curve
from services.trainer.footprint import decode, hold_to, state_bytes
from services.trainer.methods import build_trainer
from services.trainer.model import attach_lora, choose_form, load_base
from shared import hub, recipes, runs
from shared.memory import Planner
from shared.schemas import Job, Recipe
from shared.settings import Settings
from shared.store import Store

STEPS = 3
CAP = float(os.environ.get("CAP_GIB", "0"))


def main(repository: str, values: dict[str, Any], shapes: list[str], hf_home: Path) -> None:
    recipe = recipes.resolve("standard", {"steps": STEPS, "save_every": 10 * STEPS, "accumulation": 1, **values})
    recipe = recipe.model_copy(update={"base_model": repository, "evaluate_every": None})
    data = Path(tempfile.mkdtemp())
    settings = Settings(data=data, hf_home=hf_home, base_model=repository, redis_url=NOWHERE, train_memory_gib=CAP)
    store = Store(settings.data)
    hold_to(settings.train_memory_gib)
    room = (
        int(CAP * 2**30) or torch.cuda.get_device_properties(0).total_memory
    )  # others may be measured beside this one
    context = fresh(settings, store, recipe)
    longest = max(int(shape.split("x")[1]) for shape in shapes)
    folder = hub.snapshot(repository, "main", hf_home)
    config, form = json.loads((folder / "config.json").read_text()), choose_form(folder, recipe.precision).form
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
            Planner(folder, config, form, room, True),
        )


def fresh(settings: Settings, store: Store, recipe: Recipe) -> Context:
    """A run of its own, which nothing has been told of yet."""
    spec = runs.create(store, runs.new_id("train"), "train", Job(dataset="d@1", recipe="standard"), recipe)
    return Context(settings, store, spec, 1)


def measure(
    context: Context, recipe: Recipe, model: Any, tokenizer: Any, parts: dict[str, int], planner: Planner
) -> None:
    """Three steps, and a line of JSON."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    rows = torch.randint(0, 199_000, (STEPS * recipe.batch_size, recipe.max_length)).tolist()
    examples = Dataset.from_dict({"input_ids": rows, "labels": rows})
    decode(planner, recipe, recipe.max_length)
    curve = Curve(context, recipe, len(rows), len(rows) * recipe.max_length)
    trainer = build_trainer(context, recipe, model, examples, examples.select([]), tokenizer, curve)
    trainer.train()
    predicted = planner.predict(recipe, recipe.max_length).model_dump()
    measured = {**parts, "optimizer": state_bytes(trainer.optimizer), "reserved": torch.cuda.max_memory_reserved()}
    measured["allocated"] = torch.cuda.max_memory_allocated()
    del trainer
    speed = list(runs.all_events(context.store, context.spec.id, "metric"))[-1]["tokens_per_second"]
    changed = recipe.model_dump(include={"batch_size", "max_length", "lora_rank", "train_experts", "train_attention",
                                         "optimizer", "offload_embedding", "gradient_checkpointing"})  # fmt: skip
    print(
        json.dumps(
            {
                "recipe": changed,
                "form": planner.form,
                "tokens_per_second": speed,
                "measured": measured,
                "predicted": predicted,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:], Path(os.environ["HF_HOME"]))
