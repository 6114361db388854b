"""A sweep is a directory: what was asked, written once; how it stands, told by the trainer; and the wish to end it."""

import contextlib
import os
from datetime import UTC, datetime
from typing import Any

from shared import datasets, estimate, queue, recipes, registry, search
from shared.queue import JobRefused
from shared.runs import RunConflict
from shared.schemas import ENDED, Job, Recipe
from shared.settings import Settings
from shared.store import NotFound, Store, publish, read_json, write_json
from shared.sweep_schemas import SweepJob, SweepSpec, SweepStatus

FEWEST, MOST = 2, 500  # trials
VALIDATIONS = 8  # of a trial whose recipe validates at its end only: a hopeless one is seen by its first ones


def prepare(settings: Settings, store: Store, asked: SweepJob) -> SweepSpec:
    """Check a sweep and resolve what it names.

    Raises JobRefused, RecipeError, NotFound or BadName with a sentence for the person who asked."""
    if not FEWEST <= asked.trials <= MOST:
        raise JobRefused(f"A sweep compares {FEWEST} to {MOST} trials, and {asked.trials} were asked for.")
    job = Job(dataset=asked.dataset, recipe=asked.recipe, overrides=asked.overrides, name=asked.name)
    job, recipe = queue.prepare(settings, store, "train", job)
    assert recipe is not None
    _check_validation(store, str(job.dataset), recipe.validation_share)
    if recipe.evaluate_every is None:
        *_, rows = estimate.over(registry.dataset_card(store, str(job.dataset)), recipe)
        every = max(1, estimate.steps(recipe, rows) // VALIDATIONS)
        job = job.model_copy(update={"overrides": {**job.overrides, "evaluate_every": every}})
        recipe = recipes.override(recipe.model_dump(), {"evaluate_every": every})
    found = search.resolve(asked, recipe)
    return SweepSpec(id=new_id(), job=job, recipe=recipe, search=found, trials=asked.trials)


def submit(settings: Settings, store: Store, asked: SweepJob, request_id: str | None = None) -> SweepSpec:
    """Make the directory of a sweep, whole or not at all; the trainer finds it there. Raises what `prepare` raises."""
    spec = prepare(settings, store, asked).model_copy(update={"request_id": request_id})
    with store.staging(store.sweeps()) as folder:
        write_json(folder / "spec.json", spec.model_dump(exclude_none=True))
        publish(folder, store.sweep(spec.id))
    return spec


def new_id() -> str:
    """An id that sorts by time and can be read aloud: `sweep-20261121-051359-3f2a`."""
    return f"sweep-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def run_id(sweep_id: str, number: int) -> str:
    """The id of a trial's run. It follows from the sweep, so that a trial that is begun twice is begun once."""
    return f"train-{sweep_id.removeprefix('sweep-')}-{number:02}"


def trial_job(spec: SweepSpec, values: dict[str, Any]) -> tuple[Job, Recipe]:
    """The job and the recipe of a trial with these values. Raises RecipeError when they do not go together."""
    job = spec.job.model_copy(update={"overrides": {**spec.job.overrides, **values}})
    return job, recipes.override(spec.recipe.model_dump(), values)


def ids(store: Store) -> list[str]:
    """All sweeps, the newest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((name for name in os.listdir(store.sweeps()) if name[0] != "."), reverse=True)
    return []


def active(store: Store) -> list[str]:
    """The sweeps that have not ended, as their trainer has told it, the oldest first."""
    return [sweep_id for sweep_id in reversed(ids(store)) if _told(store, sweep_id).state not in ENDED]


def read_spec(store: Store, sweep_id: str) -> SweepSpec:
    """Raises NotFound if there is no such sweep."""
    try:
        return SweepSpec.model_validate(read_json(store.sweep(sweep_id) / "spec.json"))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no sweep {sweep_id!r}.") from None


def read_status(store: Store, sweep_id: str) -> SweepStatus:
    """How a sweep stands. One that was cancelled before its first trial reads so, though no trainer has seen it yet."""
    read_spec(store, sweep_id)
    status = _told(store, sweep_id)
    if status.state == "queued" and cancel_requested(store, sweep_id):
        return status.model_copy(update={"state": "cancelled", "reason": "Cancelled before its first trial."})
    return status


def write_status(store: Store, sweep_id: str, status: SweepStatus) -> None:
    """Replace the status if it has changed; the trainer is the one who does."""
    if status != _told(store, sweep_id):
        write_json(store.sweep(sweep_id) / "status.json", status.model_dump(exclude_none=True))


def request_cancel(store: Store, sweep_id: str) -> None:
    """Ask a sweep to end with the trial in hand, which is cancelled. Raises RunConflict if it has ended."""
    state = read_status(store, sweep_id).state
    if state in ENDED:
        raise RunConflict(f"Sweep {sweep_id} has already {'been ' if state == 'cancelled' else ''}{state}.")
    (store.sweep(sweep_id) / "cancel").touch()


def cancel_requested(store: Store, sweep_id: str) -> bool:
    return (store.sweep(sweep_id) / "cancel").exists()


def check_ended(store: Store, sweep_id: str) -> None:
    """Raises RunConflict unless the sweep has ended and its trainer knows it."""
    read_spec(store, sweep_id)
    if (state := _told(store, sweep_id).state) not in ENDED:
        raise RunConflict(f"Sweep {sweep_id} is {state}. Cancel it first, or wait until it has ended.")


def _told(store: Store, sweep_id: str) -> SweepStatus:
    try:
        return SweepStatus.model_validate(read_json(store.sweep(sweep_id) / "status.json"))
    except FileNotFoundError:
        return SweepStatus()


def _check_validation(store: Store, dataset: str, share: float) -> None:
    if not share:
        raise JobRefused(
            "A sweep compares validation losses, and validation_share is 0, so no row is held back. Set it to 0.1, say."
        )
    if not any(datasets.is_validation(row, share) for row in datasets.stream(store.dataset(dataset))):
        raise JobRefused(
            f"A sweep compares validation losses, and at a validation_share of {share:g} no row of {dataset} is held back. "
            "Raise validation_share, or bring more rows."
        )
