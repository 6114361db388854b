"""Sweeps: Optuna proposes the values of each trial, its run is queued like any other, and what came of it is told back.

Called again and again by the worker's watch. Everything is on disk, so each call does what the last one left undone."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from celery import Celery
from celery.utils.log import get_task_logger
from optuna import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from services.trainer import study as studies
from shared import queue, registry, runs, sweeps
from shared.queue import QueueUnreachable
from shared.recipes import RecipeError
from shared.runs import RunConflict
from shared.schemas import ENDED, State, Status, now
from shared.store import NotFound, Store
from shared.sweep_schemas import SweepSpec, SweepStatus, SweepTrial

FAILURES = 3  # failed runs in a row that end a sweep
PLACES = (
    1000  # a validation's place is its share of the run, so that trials of other lengths are compared at like shares
)
logger = get_task_logger(__name__)


def tend(app: Celery, store: Store) -> None:
    """Bring each sweep that has not ended on; one that cannot be does not hold up the others."""
    for sweep_id in sweeps.active(store):
        try:
            with _alone(store.sweep(sweep_id)) as alone:
                if alone:
                    advance(app, store, sweeps.read_spec(store, sweep_id))
        except Exception:  # it is tried again in a few seconds; the log has why
            logger.exception("the sweep %s waits", sweep_id)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other worker brings this sweep on; until the block is left, none does. A worker that dies lets go of it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def advance(app: Celery, store: Store, spec: SweepSpec) -> None:
    """Follow the trial in hand; when it has ended, begin the next one, or end the sweep."""
    study = studies.open_study(store.sweep(spec.id) / "journal.jsonl", spec)
    trial = studies.in_hand(study)
    if trial and runs.exists(store, _run(spec, trial)):
        if not follow(store, spec, study, trial):
            return tell(store, spec, study, "running")
        trial = None
    tidy(store, spec, study)
    if sweeps.cancel_requested(store, spec.id):
        if trial:  # its values were drawn, and its run was never made
            study.tell(trial, state=TrialState.FAIL)
        return tell(store, spec, study, "cancelled", "It was cancelled.")
    if not trial and (end := _end(store, spec, study)):
        return tell(store, spec, study, *end)
    try:
        begin(app, store, spec, study, trial)
    except RecipeError as error:
        return tell(store, spec, study, "failed", str(error))
    return tell(store, spec, study, "running")


def begin(app: Celery, store: Store, spec: SweepSpec, study: Study, trial: Trial | None) -> None:
    """Make the run of the next trial, or of `trial`, which has none yet, and send its message.

    Raises RecipeError when the values do not go together."""
    trial = studies.draw(study, spec, trial)
    job, recipe = sweeps.trial_job(spec, studies.values(spec, trial))
    origin = {"request_id": spec.request_id, "sweep": spec.id, "trial": trial.number + 1}
    run = runs.create(store, _run(spec, trial), "train", job, recipe, **origin)
    with contextlib.suppress(QueueUnreachable):  # the watch sends it when the queue is back
        queue.send(app, run, attempt=1)


def follow(store: Store, spec: SweepSpec, study: Study, trial: Trial) -> bool:
    """Tell the study how the trial's run goes, give the run up if it is hopeless, and say whether it has ended."""
    run_id = _run(spec, trial)
    status = runs.read_status(store, run_id)  # before the events: after its end none is added
    losses = _validations(store, run_id)
    if status.steps:
        studies.report(study, trial, {round(PLACES * step / status.steps): loss for step, loss in losses.items()})
    hopeless = studies.hopeless(study, trial, max(losses, default=0))
    if status.state not in ENDED:
        why = "Its sweep was cancelled." if sweeps.cancel_requested(store, spec.id) else hopeless
        if why and not runs.cancel_requested(store, run_id):
            with contextlib.suppress(RunConflict):  # it has ended just now
                runs.request_cancel(store, run_id, why)
        return False
    loss = _published_loss(store, status)
    if loss is not None:
        study.tell(trial, loss)
    else:
        study.tell(trial, state=TrialState.PRUNED if hopeless and status.state == "cancelled" else TrialState.FAIL)
    return True


def tidy(store: Store, spec: SweepSpec, study: Study) -> None:
    """Delete what ended trials leave behind, so that a sweep does not fill the disk: checkpoints that nothing goes on from,
    and each adapter but the best. One that an alias points at or a run works on stays."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    for trial in ended:
        with contextlib.suppress(NotFound):  # somebody has deleted the run
            if runs.read_status(store, _run(spec, trial)).state in ENDED:  # else a person goes on with it
                for checkpoint in (store.run(_run(spec, trial)) / "checkpoints").glob("checkpoint-*"):
                    shutil.rmtree(checkpoint)
    worse = {_run(spec, trial) for trial in ended if trial.number != studies.best(study)}
    used = set(registry.aliases(store).values())
    used |= {runs.read_spec(store, run_id).job.adapter for run_id, _ in runs.in_state(store, "queued", "running")}
    for card in registry.adapters(store):
        if card.run in worse and card.reference not in used:
            registry.remove_adapter(store, card.reference)


def tell(store: Store, spec: SweepSpec, study: Study, state: State, reason: str | None = None) -> None:
    """Write how the sweep stands, for those who show it."""
    best = studies.best(study)
    status = SweepStatus(
        state=state,
        reason=reason,
        trials=_trials(store, spec, study),
        best=None if best is None else best + 1,
        importances=studies.importances(study),
        ended=now() if state in ENDED else None,
    )
    sweeps.write_status(store, spec.id, status)


def _run(spec: SweepSpec, trial: Trial | FrozenTrial) -> str:
    return sweeps.run_id(spec.id, trial.number + 1)


def _end(store: Store, spec: SweepSpec, study: Study) -> tuple[State, str | None] | None:
    """How the sweep ends, if it does: with its last trial, or when its runs do nothing but fail."""
    if studies.ended(study) >= spec.trials:
        return (
            ("succeeded", None)
            if studies.complete(study)
            else ("failed", "Not one of its trials published an adapter.")
        )
    last = _trials(store, spec, study)[-FAILURES:]
    if len(last) == FAILURES and all(trial.state == "failed" for trial in last):
        return "failed", f"{FAILURES} trials in a row failed, the last because: {last[-1].reason}"
    return None


def _validations(store: Store, run_id: str) -> dict[int, float]:
    """The validation losses of a run so far, by step."""
    told = runs.all_events(store, run_id, "metric")
    return {event["step"]: event["validation_loss"] for event in told if "validation_loss" in event}


def _published_loss(store: Store, status: Status) -> float | None:
    """The validation loss of what a run published; None if it published nothing, or that was deleted already."""
    try:
        return registry.adapter_card(store, status.result).validation_loss if status.result else None
    except NotFound:
        return None


def _trials(store: Store, spec: SweepSpec, study: Study) -> list[SweepTrial]:
    """The trials as they are shown; of one whose run was deleted, what was known before."""
    known = {trial.number: trial for trial in sweeps.read_status(store, spec.id).trials}
    found = []
    for trial in study.get_trials(deepcopy=False):
        try:
            found.append(_shown(store, spec, trial))
        except NotFound:
            if before := known.get(trial.number + 1):
                found.append(before)
    return found


def _shown(store: Store, spec: SweepSpec, trial: FrozenTrial) -> SweepTrial:
    status = runs.read_status(store, _run(spec, trial))
    seen = trial.intermediate_values
    kept = status.result and (store.adapter(status.result) / "card.json").exists()
    return SweepTrial(
        number=trial.number + 1,
        run=_run(spec, trial),
        values=studies.values(spec, trial),
        state=status.state,
        pruned=trial.state == TrialState.PRUNED,
        step=status.step,
        steps=status.steps,
        validation_loss=trial.value if trial.value is not None else seen[max(seen)] if seen else None,
        reason=status.reason,
        result=status.result if kept else None,
    )
