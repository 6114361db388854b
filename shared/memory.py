"""What training needs of a GPU's memory, by part, before it starts; and the nearest recipe that needs no more than there is.

The constants are fitted to peaks measured with gpt-oss-20b on one H200: benchmarks/results/training.md has them beside what
this module says. They count what PyTorch reserves; `RUNTIME` is what CUDA takes besides.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from shared import hub
from shared.schemas import Recipe
from shared.weights import BYTES, Form

GPU_RUNTIME = 600 << 20  # CUDA's context and kernels
CPU_RUNTIME = 700 << 20  # Python, torch and what is imported
LOGITS = 512 << 20  # most that the loss may take for the logits of the part it works on: model.py tells Unsloth so
ENOUGH = 16_384  # tokens of a micro batch above which it gets no faster
MARGIN = 0.9  # share of the free memory that a micro batch may be grown to
GPU_REST = 200 << 20  # what is left over between the allocator's blocks, and small things
DECODED_ROWS = 192  # rows an expert gets, above which Unsloth decodes the whole of its layer first
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


def predict(folder: Path, config: dict[str, Any], recipe: Recipe, form: Form, tokens: int, *, on_gpu: bool) -> Memory:
    """The peak for micro batches of `tokens` tokens on the base model in `folder`, whose `config.json` is `config`."""
    adapter = adapter_parameters(config, recipe)
    optimizer = OPTIMIZER_BYTES[recipe.optimizer] if on_gpu else 8
    parts = {
        "weights": _weights(folder, config, recipe, form, on_gpu),
        "adapter": 8 * adapter,
        "optimizer": int(optimizer * adapter),
        "activations": _activations(config, recipe, form, tokens, on_gpu),
        "logits": _logits(config, tokens, on_gpu),
        "runtime": GPU_RUNTIME if on_gpu else CPU_RUNTIME,
    }
    return Memory(**parts, total=sum(parts.values()))


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


def nearest(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Changes to the recipe that need less memory, the ones that cost its user least first: each is all that is changed."""
    changes: dict[str, Any] = {}
    while (smaller := halved({**recipe.model_dump(), **changes})) is not None:
        changes |= smaller
        yield dict(changes)
    for name, value in (("gradient_checkpointing", True), ("optimizer", "adamw_8bit"), ("offload_embedding", True)):
        if getattr(recipe, name) != value:
            changes[name] = value
            yield dict(changes)
    for length in range(recipe.max_length - 1 & ~255, 255, -256):
        yield {**changes, "max_length": length}


def least_change(
    folder: Path, config: dict[str, Any], recipe: Recipe, form: Form, longest: int, available: int, *, on_gpu: bool
) -> dict[str, Any] | None:
    """The first of the `nearest` changes with which the recipe needs at most `available` bytes; None when none does.
    `longest` is the longest example, in tokens."""
    for changes in nearest(recipe):
        smaller = recipe.model_copy(update=changes)
        if predict(folder, config, smaller, form, tokens(smaller, longest), on_gpu=on_gpu).total <= available:
            return changes
    return None


def filled(
    folder: Path, config: dict[str, Any], recipe: Recipe, form: Form, longest: int, available: int
) -> dict[str, int]:
    """The largest micro batch, and its accumulation, with the recipe's effective batch that a GPU has room for; the
    recipe's own where that is the largest."""
    effective = recipe.batch_size * recipe.accumulation
    best = {"batch_size": recipe.batch_size, "accumulation": recipe.accumulation}
    for size in (size for size in range(recipe.batch_size + 1, effective + 1) if effective % size == 0):
        changes = {"batch_size": size, "accumulation": effective // size}
        larger = recipe.model_copy(update=changes)
        count = tokens(larger, longest)
        if count > ENOUGH or predict(folder, config, larger, form, count, on_gpu=True).total > MARGIN * available:
            break
        best = changes
    return best


def tokens(recipe: Recipe, longest: int) -> int:
    """Tokens of the largest micro batch when the longest example, or side of a pair, has `longest`."""
    sides = 2 if recipe.method == "dpo" else 1
    return recipe.batch_size * sides * (recipe.max_length if recipe.packing else min(longest, recipe.max_length))


def sentence(predicted: Memory, available: int, changes: dict[str, Any] | None) -> str:
    """What a person is told whose recipe needs more memory than there is."""
    short = f"This needs about {predicted.total / 2**30:.1f} GiB of memory and {available / 2**30:.1f} GiB are free. "
    if changes is None:
        return short + f"Nothing smaller fits: the base alone takes {predicted.weights / 2**30:.1f} GiB."
    return short + "The nearest that fits: " + ", ".join(f"{name} {value}" for name, value in changes.items()) + "."


def halved(values: dict[str, Any]) -> dict[str, int] | None:
    """Half the micro batch, or the largest smaller one, that keeps the effective batch; None when it is one already."""
    batch, accumulation = values["batch_size"], values["accumulation"]
    smaller = next((size for size in range(batch // 2, 0, -1) if batch * accumulation % size == 0), None)
    return {"batch_size": smaller, "accumulation": batch * accumulation // smaller} if smaller else None


def _weights(folder: Path, config: dict[str, Any], recipe: Recipe, form: Form, on_gpu: bool) -> int:
    total, experts = hub.parameters(folder)
    found = experts * BYTES[form] + (total - experts) * (4 if form == "fp32" else 2)
    offloaded = config["vocab_size"] * config["hidden_size"] * 2 if recipe.offload_embedding and on_gpu else 0
    return int(found - offloaded)


def _activations(config: dict[str, Any], recipe: Recipe, form: Form, tokens: int, on_gpu: bool) -> int:
    """What one layer needs while it is computed again on the way back, and what is kept of the others. MXFP4 experts are
    decoded as a whole for micro batches that are not short, which is the peak until the tokens' own share is larger."""
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    chosen = config["num_experts_per_tok"]
    routed = chosen * (hidden + 3 * inner)
    width = 2 if on_gpu else 4
    layer = int(tokens * width * (12 * hidden + 4.1 * routed))
    if form == "mxfp4" and on_gpu and tokens * chosen >= DECODED_ROWS * experts:
        decoded = experts * 3 * hidden * inner * width
        layer = max(layer, decoded + int(tokens * width * (12 * hidden + 3.3 * routed)))
    kept = 0 if recipe.gradient_checkpointing and on_gpu else 1 if recipe.gradient_checkpointing else 12
    return layer + kept * config["num_hidden_layers"] * tokens * hidden * width + (GPU_REST if on_gpu else 0)


def _logits(config: dict[str, Any], tokens: int, on_gpu: bool) -> int:
    """On a GPU the loss is computed in parts, of which one is in memory."""
    if on_gpu:
        return min(tokens * config["vocab_size"] * LOGIT_BYTES, LOGITS)
    return int(tokens * config["vocab_size"] * CPU_LOGIT_BYTES)
