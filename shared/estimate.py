"""What a training run will take, before it is sent: steps, tokens, time and memory, each with where the figure comes from."""

import json
import math
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from shared import hub, memory, registry, runs
from shared.memory import Memory
from shared.schemas import Job, Recipe, RunSpec
from shared.settings import Settings
from shared.store import NotFound, Store
from shared.weights import NAMES, WrongForm, choose

TAIL = 64 << 10
MOST_RUNS = 50  # earlier runs that are looked at for a speed
FILLED = 0.97  # share of a packed row that is not padding, about


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
    nearest: dict[str, Any] | None = Field(None, description="the least change with which it fits, if it does not")
    notes: list[str]


def steps(recipe: Recipe, examples: int) -> int:
    """Optimizer steps of a run over `examples` training examples."""
    per_epoch = max(1, examples // (recipe.batch_size * recipe.accumulation))
    return recipe.steps or max(1, round(per_epoch * recipe.epochs))


def over(card: dict[str, Any], recipe: Recipe) -> tuple[int, float, int]:
    """What one pass goes over, about: (training examples, mean tokens of one, rows in which they stand) of a data set's card."""
    counted = card["tokens"]
    examples = max(1, round(card["rows"]["accepted"] * (1 - recipe.validation_share)))
    mean = min(counted["mean"], recipe.max_length) if counted else recipe.max_length / 2
    if recipe.method == "text" and counted:  # longer rows are parted
        examples = max(examples, round(counted["total"] * (1 - recipe.validation_share) / recipe.max_length))
    if recipe.method == "dpo":  # both answers, each with the prompt
        mean *= 2
    rows = math.ceil(examples * mean / (FILLED * recipe.max_length)) if recipe.packing else examples
    return examples, mean, rows


def estimate(
    settings: Settings, store: Store, job: Job, recipe: Recipe, available: int | None, *, on_gpu: bool
) -> Estimate:
    """The estimate for a job that `queue.prepare` has resolved, on a machine or a GPU with `available` bytes of memory."""
    card = registry.dataset_card(store, str(job.dataset))
    counted = card["tokens"]
    examples, mean, rows = over(card, recipe)
    batch = recipe.batch_size * recipe.accumulation
    count = steps(recipe, rows)
    notes = []
    if not counted:
        notes.append("The data set's tokens are not counted yet, so half of max_length is assumed for each row.")
    elif counted["max"] > recipe.max_length and recipe.method != "text":
        notes.append(
            f"Rows longer than {recipe.max_length:,} tokens are cut; the longest has {counted['max']:,}. Raise max_length to keep them."
        )
    if rows < batch:
        what = "rows of packed examples" if recipe.packing else "examples"
        notes.append(f"A step takes {batch} {what} of {rows} in all: they are seen again within a step.")
    epochs = count * batch / rows
    if epochs > 10:
        notes.append(f"Each example is seen about {epochs:.0f} times: the adapter may recite its rows.")
    a_step = batch * mean * examples / rows
    seconds, said = _seconds(store, recipe, count * a_step)
    longest = counted["max"] if counted else recipe.max_length
    predicted, change = _memory(settings, recipe, longest, available, on_gpu, notes)
    return Estimate(
        steps=count,
        epochs=round(epochs, 2),
        examples=examples,
        tokens_per_step=round(a_step, 1),
        seconds=seconds,
        seconds_from=said,
        memory=predicted,
        memory_available=available,
        nearest=change,
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


def _memory(
    settings: Settings, recipe: Recipe, longest: int, available: int | None, on_gpu: bool, notes: list[str]
) -> tuple[Memory | None, dict[str, Any] | None]:
    """Peak memory, from the base model's config and files, and the least change that fits if it does not; None where it
    cannot be known."""
    try:
        folder = hub.snapshot(recipe.base_model, recipe.revision, settings.hf_home)
        config = json.loads((folder / "config.json").read_bytes())
    except (NotFound, OSError):
        notes.append(f"{recipe.base_model} is not in the Hugging Face cache, so memory cannot be estimated.")
        return None, None
    parameters = hub.parameters(folder)[0]
    try:
        choice = choose(config, recipe.precision, on_gpu=on_gpu, parameters=parameters, memory=available)
    except WrongForm as error:
        notes.append(str(error))
        return None, None
    notes.append(f"The base is trained in {NAMES[choice.form]}: {choice.why}.")
    planner = memory.Planner(folder, config, choice.form, available or 1 << 62, on_gpu).sharded(recipe, longest)
    if planner.shards > 1:
        notes.append(f"The base is sharded among the {planner.shards} GPUs, of which each needs this much memory.")
    filled = planner.filled(recipe, longest)
    if filled.batch_size > recipe.batch_size:
        notes.append(f"There is room for {filled.batch_size} rows at once, so as many are done at once.")
    predicted = planner.predict(filled, longest)
    if planner.fits(filled, longest):
        return predicted, None
    notes.append(planner.sentence(recipe, longest))
    return predicted, planner.least_change(recipe, longest)
