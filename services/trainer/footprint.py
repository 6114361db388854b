"""What a training run takes of memory: predicted before it starts, refused if there is not so much, measured when it ends."""

import json
import os
from pathlib import Path
from typing import Any

import psutil
import torch

from services.trainer.agree import join, least
from services.trainer.child import Context, Refused
from services.trainer.curve import memory_bytes
from services.trainer.exits import memory_limit
from shared.memory import Planner
from shared.schemas import Recipe
from shared.weights import NAMES, Choice


class Footprint:
    """`recipe` is the one asked for with the micro batch that fills the GPU; among `shards` GPUs the base is to be sharded;
    `mark` says what has just been made; `report` says how far the prediction was from what came."""

    def __init__(self, context: Context, recipe: Recipe, folder: Path, choice: Choice, longest: int) -> None:
        """Predict for a longest example of `longest` tokens. Raises Refused, with the nearest recipe that fits, when there
        is less memory than that."""
        self.context, self.on_gpu = context, torch.cuda.is_available()
        config = json.loads((folder / "config.json").read_bytes())
        join(context.ranks)
        most = context.settings.train_memory_gib
        hold_to(most)
        planner = Planner(folder, config, choice.form, least(available(most)), self.on_gpu).sharded(recipe, longest)
        self.shards = planner.shards
        self.recipe = recipe = planner.filled(recipe, longest)
        self.predicted = planner.predict(recipe, longest)
        decode(planner, recipe, longest)
        self.measured: dict[str, int] = {}
        self.seen = 0
        context.log(f"The base is trained in {NAMES[choice.form]}: {choice.why}.")
        context.event("micro_batch", batch_size=recipe.batch_size, accumulation=recipe.accumulation, gpus=recipe.gpus)
        if self.shards > 1:
            why = "the recipe says so" if recipe.shard == "always" else "it does not fit one of them"
            left_out = " offload_embedding is left out." if recipe.offload_embedding else ""
            context.log(f"The base is sharded among the {self.shards} GPUs: {why}.{left_out}")
        self.told = {
            "form": NAMES[choice.form],
            "why": choice.why,
            "shards": self.shards,
            "available": planner.available,
        }
        context.event("memory", **self.told, predicted=self.predicted.model_dump())
        if not planner.fits(recipe, longest):
            raise Refused(planner.sentence(recipe, longest))
        if recipe.shard == "always" and self.shards < recipe.gpus:
            raise Refused(f"{NAMES[choice.form]} weights cannot be sharded. Set shard to auto, or precision to bf16.")

    def mark(self, part: str) -> None:
        """What has been allocated on the GPU since the last call, or given back, is of `part`."""
        if self.on_gpu:
            self.measured[part] = self.measured.get(part, 0) + torch.cuda.memory_allocated() - self.seen
            self.seen = torch.cuda.memory_allocated()

    def begin(self) -> None:
        """Training begins: the peak is counted from here."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def report(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The event that compares the two: {"predicted", "measured", "error"}, bytes by part and the share by which the
        prediction of the whole was off. What is not weights, adapter or optimizer is activations, logits among them."""
        peak = memory_bytes()
        predicted = self.predicted.total - (self.predicted.runtime if self.on_gpu else 0)
        if self.on_gpu:
            self.measured["adapter"] *= 2  # and its gradients
            self.measured["optimizer"] = state_bytes(optimizer)
            self.measured["activations"] = peak - sum(self.measured.values())
        self.measured["total"] = peak
        told = {"predicted": self.predicted.model_dump(), "measured": self.measured, "error": predicted / peak - 1}
        self.context.event("memory", **self.told, **told)
        self.context.log(
            f"Peak memory: {peak / 2**30:.2f} GiB, predicted {predicted / 2**30:.2f} GiB ({told['error']:+.1%})."
        )
        return told


def decode(planner: Planner, recipe: Recipe, longest: int) -> None:
    """Have Unsloth decode MXFP4 experts a tile at a time where there is no room for a layer's as a whole, and else let it
    choose, also in a process that trained in tiles before."""
    os.environ["UNSLOTH_MXFP4_FUSED_GEMM"] = "auto" if planner.decodes(recipe, longest) else "1"


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of what an optimizer keeps of the parameters."""
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))


def hold_to(most_gib: float) -> None:
    """Keep PyTorch from taking more of its GPU than that, if it is not 0."""
    if most_gib and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_gib * 2**30 / total))


def available(most_gib: float) -> int:
    """Bytes that this process can have: of the GPU's memory what is free, at most `most_gib` if that is not 0; without a GPU
    what its container or machine has."""
    if not torch.cuda.is_available():
        return memory_limit() or psutil.virtual_memory().total
    free, _ = torch.cuda.mem_get_info()
    return min(free, int(most_gib * 2**30)) if most_gib else free
