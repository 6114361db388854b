"""Optuna's side of a sweep: the study on disk, the values that it draws, and what it makes of those that were tried."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from shared.search import WHOLE
from shared.store import append_line
from shared.sweep_schemas import Range, SweepSpec

START = 4  # trials that are drawn at random and never pruned: what the sampler and the median start from
PRUNED = "pruned"  # the attribute of a trial that says why it was given up
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Journal(BaseJournalBackend):
    """Optuna's journal as a file of lines. Unlike Optuna's own, what a crash tore is cut off, and no lock outlives one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        return (json.loads(line) for line in lines[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        append_line(self.path, "\n".join(json.dumps(log) for log in logs))


def open_study(journal: Path, spec: SweepSpec) -> Study:
    """The study in a sweep's journal. Its first trial takes the recipe's own values where they may be chosen, so that the
    sweep shows what searching gains.

    Hopeless trials are known by the median and not by Hyperband: that needs dozens of trials to fill its brackets, and a
    sweep has about a dozen."""
    storage = JournalStorage(Journal(journal))
    try:
        study = optuna.load_study(study_name=spec.id, storage=storage)
    except KeyError:
        study = optuna.create_study(study_name=spec.id, storage=storage)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=START)
    if not study.trials:
        own = spec.recipe.model_dump()
        study.enqueue_trial({name: own[name] for name, choice in spec.search.items() if _within(own[name], choice)})
    # each call begins with a new sampler: with the same seed it would draw the same values for every trial
    study.sampler = optuna.samplers.TPESampler(seed=spec.recipe.seed + ended(study), n_startup_trials=START)
    return study


def in_hand(study: Study) -> Trial | None:
    """The trial that was asked for and has not ended. Optuna gives one out but once, so it is made as `Study.ask` does."""
    found = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return Trial(study, found[0]._trial_id) if found else None


def draw(study: Study, spec: SweepSpec, trial: Trial | None) -> Trial:
    """The next trial with all its values, or `trial` with those that it still lacks."""
    trial = trial or study.ask()
    for name, choice in spec.search.items():
        if isinstance(choice, list):
            trial.suggest_categorical(name, choice)
        elif name in WHOLE:
            trial.suggest_int(name, int(choice.low), int(choice.high), log=bool(choice.log))
        else:
            trial.suggest_float(name, choice.low, choice.high, log=bool(choice.log))
    return trial


def values(spec: SweepSpec, trial: Trial | FrozenTrial) -> dict[str, Any]:
    """What Optuna drew, as a recipe's values: numbers of a range to three digits, as more of them say nothing."""
    ranged = {name for name, choice in spec.search.items() if isinstance(choice, Range) and name not in WHOLE}
    return {name: float(f"{value:.3g}") if name in ranged else value for name, value in trial.params.items()}


def report(study: Study, trial: Trial, losses: dict[int, float]) -> None:
    """Tell the validation losses of a trial, each by its place in the run; those that are known are passed over."""
    known = study.trials[trial.number].intermediate_values
    for place, loss in losses.items():
        if place not in known:
            trial.report(loss, place)


def hopeless(study: Study, trial: Trial, step: int) -> str:
    """Why the trial is to be given up at `step`, by the numbers that Optuna's median pruner compares; empty if it is not."""
    if PRUNED not in trial.user_attrs and trial.should_prune():
        seen = study.trials[trial.number].intermediate_values
        place = max(seen)
        there = [other.intermediate_values[place] for other in complete(study) if place in other.intermediate_values]
        trial.set_user_attr(
            PRUNED,
            f"Pruned at step {step}: its validation loss {min(seen.values()):.3f} is above the median "
            f"{statistics.median(there):.3f} of the {len(there)} finished trials there.",
        )
    return trial.user_attrs.get(PRUNED, "")


def ended(study: Study) -> int:
    """How many trials have ended."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def complete(study: Study) -> list[FrozenTrial]:
    """The trials that went to their end and published."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best(study: Study) -> int | None:
    """Optuna's number, from 0, of the trial with the lowest validation loss."""
    found = complete(study)
    return min(found, key=lambda trial: trial.value).number if found else None


def importances(study: Study) -> dict[str, float]:
    """How much each value tells the better half of the trials from the others, by PED-ANOVA
    (https://arxiv.org/abs/2304.10255); nothing of a few trials, or equal ones."""
    found = complete(study)
    if len(found) < 2 * START or len({trial.value for trial in found}) == 1:
        return {}
    better_half = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
    return optuna.importance.get_param_importances(study, evaluator=better_half)


def _within(value: Any, choice: Range | list[Any]) -> bool:
    if isinstance(choice, list):
        return value in choice
    return value is not None and choice.low <= value <= choice.high
