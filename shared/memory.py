"""What training needs of a GPU's memory, by part, before it starts; and the nearest recipe that needs no more than there is.

The constants are fitted to peaks measured with gpt-oss-20b on one H200: benchmarks/results/training.md has them beside what
this module says. They count what PyTorch reserves; `RUNTIME` is what CUDA takes besides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from shared import hub
from shared.schemas import Recipe
from shared.weights import BYTES, SHARDED, Form

GPU_RUNTIME = 600 << 20  # CUDA's context and kernels
CPU_RUNTIME = 700 << 20  # Python, torch and what is imported
LOGITS = 512 << 20  # most that the loss may take for the logits of the part it works on: model.py tells Unsloth so
ENOUGH = 16_384  # tokens of a micro batch above which it gets no faster
MARGIN = 0.9  # share of the free memory that a micro batch may be grown to
MOST_ACCUMULATION = 1024  # that a recipe may have
GPU_REST = 200 << 20  # what is left over between the allocator's blocks, and small things
GATHERED = 3  # layers of a sharded base that are whole at a time: the one in use, the next, and where that arrives
TILED_ROWS = 256  # of an expert, up to which decoding it a tile at a time is no slower than its layer as a whole
LOGIT_BYTES = 16  # of one logit, with what the loss keeps beside it
CPU_LOGIT_BYTES = 2.6  # fp32, of those that are supervised, about
OPTIMIZER_BYTES = {"adamw_8bit": 2.06, "adamw_torch": 8, "adamw_torch_fused": 8}  # of a trainable parameter


class Memory(BaseModel):
    """Peak memory by what it is for, in bytes."""

    weights: int = Field(description="the frozen base")
    adapter: int = Field(description="the adapter's weights and their gradients")
    optimizer: int
    activations: int
    logits: int
    runtime: int = Field(description="CUDA, Python and their libraries")
    total: int


@dataclass(frozen=True)
class Planner:
    """What training takes on one base model, in `form`, on one machine with `available` bytes; `config` is the base's
    `config.json`, `longest` always the longest example, in tokens. With several `shards` it is what each GPU takes that has
    one of them."""

    folder: Path
    config: dict[str, Any]
    form: Form
    available: int
    on_gpu: bool
    shards: int = 1

    def sharded(self, recipe: Recipe, longest: int) -> "Planner":
        """This planner, or where the recipe says so, or would not fit one of its GPUs, that of a base which is sharded among
        them. An NF4 base is loaded onto each GPU as a whole before it is sharded."""
        loads = self.form != "nf4" or self._weights(recipe) + GPU_RUNTIME <= self.available
        if recipe.shard == "never" or self.form not in SHARDED or not loads:
            return self
        several, whole = replace(self, shards=recipe.gpus), self.predict(recipe, longest).total
        fewer = whole > self.available and several.predict(recipe, longest).total < whole
        return several if recipe.shard == "always" or fewer else self

    def predict(self, recipe: Recipe, longest: int) -> Memory:
        """The peak of a run of the recipe."""
        return self._predict(recipe, longest, decoding=self.decodes(recipe, longest))

    def decodes(self, recipe: Recipe, longest: int) -> bool:
        """Whether a layer's MXFP4 experts are decoded as a whole: faster for many tokens, and there must be room."""
        rows = tokens(recipe, longest) * self.config["num_experts_per_tok"] / self.config["num_local_experts"]
        room = self._predict(recipe, longest, decoding=True).total <= MARGIN * self.available
        return self.form == "mxfp4" and rows > TILED_ROWS and room

    def fits(self, recipe: Recipe, longest: int) -> bool:
        """Whether there is as much memory as the recipe needs."""
        return self.predict(recipe, longest).total <= self.available

    def filled(self, recipe: Recipe, longest: int) -> Recipe:
        """The recipe with the largest micro batch of its effective batch that there is room for."""
        effective, best = recipe.batch_size * recipe.accumulation, recipe
        if not (self.on_gpu and recipe.fill_memory):
            return recipe
        for size in range(recipe.batch_size + 1, effective + 1):
            if effective % (size * recipe.gpus):
                continue
            larger = recipe.model_copy(update={"batch_size": size, "accumulation": effective // size})
            room = self.predict(larger, longest).total <= MARGIN * self.available
            if not room or tokens(larger, longest) > ENOUGH:
                break
            best = larger
        return best

    def least_change(self, recipe: Recipe, longest: int) -> dict[str, Any] | None:
        """The first of the `smaller` steps, with those before it that helped, with which the recipe fits; None if none does."""
        changes: dict[str, Any] = {}
        least = self.predict(recipe, longest).total
        for step in smaller(recipe):
            needs = self.predict(recipe.model_copy(update=changes | step), longest).total
            if needs < least:
                changes, least = changes | step, needs
            if least <= self.available:
                return changes
        return None

    def sentence(self, recipe: Recipe, longest: int) -> str:
        """What a person is told whose recipe needs more memory than there is."""
        needs, has = self.predict(recipe, longest), self.available
        short = f"This needs about {needs.total / 2**30:.1f} GiB of memory, and there are {has / 2**30:.1f} GiB. "
        change = self.least_change(recipe, longest)
        if change is None:
            short += f"Nothing smaller fits: the base alone takes {needs.weights / 2**30:.1f} GiB."
            shardable = self.form in SHARDED or recipe.gpus == 1
            return short if shardable else f"{short} More GPUs do not help: MXFP4 weights cannot be sharded among them."
        values = (f"{name} {'on' if value is True else value}" for name, value in change.items())
        return f"{short}The nearest that fits: {', '.join(values)}."

    def _predict(self, recipe: Recipe, longest: int, *, decoding: bool) -> Memory:
        adapter, count = adapter_parameters(self.config, recipe), tokens(recipe, longest)
        optimizer = OPTIMIZER_BYTES[recipe.optimizer] if self.on_gpu else 8
        parts = {
            "weights": self._weights(recipe),
            "adapter": 8 * adapter,
            "optimizer": int(optimizer * adapter),
            "activations": self._activations(recipe, count, decoding),
            "logits": self._logits(count),
            "runtime": GPU_RUNTIME if self.on_gpu else CPU_RUNTIME,
        }
        return Memory(**parts, total=sum(parts.values()))

    def _weights(self, recipe: Recipe) -> int:
        total, experts = hub.parameters(self.folder)
        width = 4 if self.form == "fp32" else 2
        found = experts * BYTES[self.form] + (total - experts) * width
        embedding = self.config["vocab_size"] * self.config["hidden_size"] * width
        if self.shards > 1:
            whole = embedding * (1 if self.config.get("tie_word_embeddings") else 2)
            layers = found - whole
            gathered = min(1, GATHERED / self.config["num_hidden_layers"])
            return int(whole + layers * (1 / self.shards + gathered))
        return int(found - (embedding if recipe.offload_embedding and self.on_gpu else 0))

    def _activations(self, recipe: Recipe, count: int, decoding: bool) -> int:
        """What one layer needs while it is computed again on the way back, and what is kept of the others. Experts that are
        decoded as a whole are the peak until the tokens' share is larger."""
        config = self.config
        hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
        chosen, width = config["num_experts_per_tok"], 2 if self.on_gpu else 4
        routed = chosen * (hidden + 3 * inner)
        layer = int(count * width * (12 * hidden + 4.1 * routed))
        if decoding:
            decoded = experts * 3 * hidden * inner * width
            layer = max(layer, decoded + int(count * width * (12 * hidden + 3.3 * routed)))
        kept = 0 if recipe.gradient_checkpointing and self.on_gpu else 1 if recipe.gradient_checkpointing else 12
        rest = GPU_REST if self.on_gpu else 0
        return layer + kept * config["num_hidden_layers"] * count * hidden * width + rest

    def _logits(self, count: int) -> int:
        """On a GPU the loss is computed in parts, of which one is in memory."""
        every = count * self.config["vocab_size"]
        return min(every * LOGIT_BYTES, LOGITS) if self.on_gpu else int(every * CPU_LOGIT_BYTES)


def adapter_parameters(config: dict[str, Any], recipe: Recipe) -> int:
    """Trainable parameters of the recipe's LoRA on a gpt-oss model: rank times (in + out) of each adapted matrix."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    attention = 2 * (hidden + queries) + 2 * (hidden + keys)
    experts = config["num_local_experts"] * ((hidden + 2 * inner) + (inner + hidden))
    router = hidden + config["num_local_experts"]
    a_layer = attention * recipe.train_attention + experts * recipe.train_experts + router * recipe.train_router
    return recipe.lora_rank * config["num_hidden_layers"] * a_layer


def smaller(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Steps to less memory, the ones that cost a recipe's user least first: each comes on top of those before it."""
    values = recipe.model_dump()
    while (step := halved(values)) is not None:
        values |= step
        yield step
    yield from ({"gradient_checkpointing": True}, {"optimizer": "adamw_8bit"}, {"offload_embedding": True})
    for length in range(recipe.max_length - 1 & ~255, 255, -256):
        yield {"max_length": length}


def tokens(recipe: Recipe, longest: int) -> int:
    """Tokens of the largest micro batch when the longest example, or side of a pair, has `longest`."""
    sides = 2 if recipe.method == "dpo" else 1
    return recipe.batch_size * sides * (recipe.max_length if recipe.packing else min(longest, recipe.max_length))


def halved(values: dict[str, Any]) -> dict[str, int] | None:
    """Half the micro batch, or the largest smaller one, that keeps the effective batch and can be shared by as many GPUs;
    None when there is none."""
    batch, accumulation, gpus = values["batch_size"], values["accumulation"], values["gpus"]
    effective = batch * accumulation
    least = -(-effective // MOST_ACCUMULATION)
    size = next((size for size in range(batch // 2, least - 1, -1) if effective % (size * gpus) == 0), None)
    return {"batch_size": size, "accumulation": effective // size} if size else None
