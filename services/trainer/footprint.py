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
    """`recipe` is the one asked for with the micro batch that fills the GPU; `mark` says what has just been made; `report`
    says how far the prediction was from what came."""

    def __init__(self, context: Context, recipe: Recipe, folder: Path, choice: Choice, longest: int) -> None:
        """Predict for a longest example of `longest` tokens. Raises Refused, with the nearest recipe that fits, when there
        is less memory than that."""
        self.context, self.on_gpu = context, torch.cuda.is_available()
        config = json.loads((folder / "config.json").read_bytes())
        join(context.ranks)
        planner = Planner(folder, config, choice.form, least(available(context)), self.on_gpu)
        self.recipe = recipe = planner.filled(recipe, longest)
        self.predicted = planner.predict(recipe, longest)
        if not planner.decodes(recipe, longest):
            os.environ["UNSLOTH_MXFP4_FUSED_GEMM"] = "1"  # decode the experts a tile at a time
        self.measured: dict[str, int] = {}
        self.seen = 0
        context.log(f"The base is trained in {NAMES[choice.form]}: {choice.why}.")
        context.event("micro_batch", batch_size=recipe.batch_size, accumulation=recipe.accumulation, gpus=recipe.gpus)
        self.told = {"form": NAMES[choice.form], "why": choice.why, "available": planner.available}
        context.event("memory", **self.told, predicted=self.predicted.model_dump())
        if not planner.fits(recipe, longest):
            raise Refused(planner.sentence(recipe, longest))

    def mark(self, part: str) -> None:
        """What has been allocated on the GPU since the last call is `part`."""
        if self.on_gpu:
            self.measured[part] = torch.cuda.memory_allocated() - self.seen
            self.seen = torch.cuda.memory_allocated()

    def begin(self) -> None:
        """Training begins: the peak is counted from here."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def report(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The event that compares the two: {"predicted", "measured", "error"}, bytes by part and the share by which the
        prediction of the whole was off. What is not weights, adapter or optimizer is activations, logits among them."""
        state = sum(
            value.nbytes
            for kept in optimizer.state.values()
            for value in kept.values()
            if isinstance(value, torch.Tensor)
        )
        peak = memory_bytes()
        predicted = self.predicted.total - (self.predicted.runtime if self.on_gpu else 0)
        if self.on_gpu:
            self.measured["adapter"] *= 2  # and its gradients
            self.measured |= {"optimizer": state}
            self.measured["activations"] = peak - sum(self.measured.values())
        self.measured["total"] = peak
        told = {"predicted": self.predicted.model_dump(), "measured": self.measured, "error": predicted / peak - 1}
        self.context.event("memory", **self.told, **told)
        self.context.log(
            f"Peak memory: {peak / 2**30:.2f} GiB, predicted {predicted / 2**30:.2f} GiB ({told['error']:+.1%})."
        )
        return told


def available(context: Context) -> int:
    """Bytes that this process can have: of the GPU's memory what is free, at most what the settings say; without a GPU what
    its container or machine has."""
    if not torch.cuda.is_available():
        return memory_limit() or psutil.virtual_memory().total
    free, total = torch.cuda.mem_get_info()
    most = context.settings.train_memory_gib
    if not most:
        return free
    torch.cuda.set_per_process_memory_fraction(min(1.0, most * 2**30 / total))
    return min(free, int(most * 2**30))
