"""What a training run will take, before it is sent: steps, tokens, time and memory, each with where the figure comes from."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from shared import hub, registry, runs
from shared.schemas import Job, Recipe, RunSpec
from shared.settings import Settings
from shared.store import NotFound, Store

TAIL = 64 << 10
MOST_RUNS = 50  # earlier runs that are looked at for a speed
# Fitted to peaks measured with the MXFP4 checkpoint of gpt-oss-20b on one H200, 1,024 to 65,536 tokens a batch: what is kept
# of each layer's input, and the head's logits, of which Unsloth holds a part at a time.
LOGIT_SHARE = 0.65
GPU_RUNTIME = 600 << 20  # CUDA's context and kernels
CPU_RUNTIME = 700 << 20  # Python, torch and what is imported
WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "nf4": 0.56}  # NF4: four bits, and a scale a block


class Memory(BaseModel):
    """Peak memory by what it is for, in bytes."""

    weights: int
    adapter: int = Field(description="the adapter's weights and their gradients")
    optimizer: int
    activations: int
    logits: int
    runtime: int
    total: int


class Estimate(BaseModel):
    """What a training run will take; a figure that cannot be known is null, and `notes` say why."""

    steps: int
    epochs: float
    examples: int = Field(description="training examples, validation left out; about, as a row may become several")
    tokens_per_step: float
    seconds: float | None
    seconds_from: str = Field(description="what the speed is taken from")
    memory: Memory | None
    memory_available: int | None = Field(description="of the trainer's GPU, or of the machine where there is none")
    notes: list[str]


def steps(recipe: Recipe, examples: int) -> int:
    """Optimizer steps of a run over `examples` training examples."""
    per_epoch = max(1, examples // (recipe.batch_size * recipe.accumulation))
    return recipe.steps or max(1, round(per_epoch * recipe.epochs))


def estimate(settings: Settings, store: Store, job: Job, recipe: Recipe, gpu_memory: int | None) -> Estimate:
    """The estimate for a job that `queue.prepare` has resolved; `gpu_memory` is None where the trainer has no GPU."""
    card = registry.dataset_card(store, str(job.dataset))
    rows, tokens = card["rows"]["accepted"], card["tokens"]
    examples = max(1, round(rows * (1 - recipe.validation_share)))
    mean = min(tokens["mean"], recipe.max_length) if tokens else recipe.max_length / 2
    if recipe.method == "text" and tokens:  # longer rows are parted
        examples = max(examples, round(tokens["total"] * (1 - recipe.validation_share) / recipe.max_length))
    sides = 2 if recipe.method == "dpo" else 1  # of a pair both answers, each with the prompt
    batch = recipe.batch_size * recipe.accumulation
    count = steps(recipe, examples)
    notes = []
    if not tokens:
        notes.append("The data set's tokens are not counted yet, so half of max_length is assumed for each row.")
    elif tokens["max"] > recipe.max_length and recipe.method != "text":
        notes.append(
            f"Rows longer than {recipe.max_length:,} tokens are cut; the longest has {tokens['max']:,}. Raise max_length to keep them."
        )
    if examples < batch:
        notes.append(f"{examples} examples are fewer than one step's {batch}: they are seen again within a step.")
    epochs = count * batch / examples
    if epochs > 10:
        notes.append(f"Each example is seen about {epochs:.0f} times: the adapter may recite its rows.")
    seconds, said = _seconds(store, recipe, count * batch * sides * mean)
    longest = min(recipe.max_length, tokens["max"] if tokens else recipe.max_length)
    return Estimate(
        steps=count,
        epochs=round(epochs, 2),
        examples=examples,
        tokens_per_step=round(batch * sides * mean, 1),
        seconds=seconds,
        seconds_from=said,
        memory=_memory(
            settings, recipe, recipe.batch_size * sides * longest, on_gpu=gpu_memory is not None, notes=notes
        ),
        memory_available=gpu_memory,
        notes=notes,
    )


def _seconds(store: Store, recipe: Recipe, tokens: float) -> tuple[float | None, str]:
    """Time by the speed of the newest run here on the same base, its start included, and where that is from."""
    for run_id in [i for i in runs.ids(store) if i.startswith("train-")][:MOST_RUNS]:
        spec = runs.read_spec(store, run_id)
        alike = spec.recipe and (spec.recipe.base_model, spec.recipe.method) == (recipe.base_model, recipe.method)
        found = _pace(store, spec) if alike else None
        if found:
            speed, start = found
            return round(start + tokens / speed, 1), f"{speed:,.0f} tokens a second in {run_id}"
    return None, "no run of this base model by this method has been made here yet"


def _pace(store: Store, spec: RunSpec) -> tuple[float, float] | None:
    """(tokens a second, seconds before the first step) of a run that succeeded; None of another."""
    status = runs.read_status(store, spec.id)
    if status.state != "succeeded" or not status.started:
        return None
    with open(store.run(spec.id) / "events.jsonl", "rb") as file:
        head = file.read(TAIL).splitlines()
        file.seek(max(0, file.seek(0, 2) - TAIL))
        tail = file.read().splitlines()[1:]
    speeds = sorted(s for line in tail or head if (s := _metric(line).get("tokens_per_second")))
    first = next((m["time"] for line in head if "loss" in (m := _metric(line))), None)
    if not speeds or not first:
        return None
    start = (datetime.fromisoformat(first) - datetime.fromisoformat(status.started)).total_seconds()
    return speeds[len(speeds) // 2], max(0.0, start)


def _metric(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line) if b'"type": "metric"' in line[:99] else {}
    except ValueError:  # cut by the window
        return {}


def _memory(settings: Settings, recipe: Recipe, tokens: int, *, on_gpu: bool, notes: list[str]) -> Memory | None:
    """Peak memory for batches of `tokens` tokens, from the base model's config and files; None when it is not cached."""
    try:
        folder = hub.snapshot(recipe.base_model, recipe.revision, settings.hf_home)
        config = json.loads((folder / "config.json").read_bytes())
    except (NotFound, OSError):
        notes.append(f"{recipe.base_model} is not in the Hugging Face cache, so memory cannot be estimated.")
        return None
    adapter = adapter_parameters(config, recipe)
    precision = recipe.precision if on_gpu or recipe.precision != "auto" else "fp32"
    width = 2 if on_gpu else 4
    parts = {
        "weights": _weights(folder, precision),
        "adapter": 8 * adapter,
        "optimizer": (2 if recipe.optimizer == "adamw_8bit" and on_gpu else 8) * adapter,
        "activations": _layers(config, recipe) * tokens * config["hidden_size"] * width,
        "logits": int(tokens * config["vocab_size"] * width * LOGIT_SHARE),
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


def _layers(config: dict[str, Any], recipe: Recipe) -> int:
    """Tensors of the hidden size that are kept for the way back: one a layer when the rest is computed again."""
    return config["num_hidden_layers"] * (1 if recipe.gradient_checkpointing else 12)


def _weights(folder: Path, precision: str) -> int:
    """Bytes of the base model in memory: its files as they are, or its parameters in another precision."""
    if precision == "auto":
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    total, experts = hub.parameters(folder)
    return int(experts * WEIGHT_BYTES[precision] + (total - experts) * (4 if precision == "fp32" else 2))
