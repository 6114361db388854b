"""What a run says while it trains: the curve, checkpoints, warnings, and why it stopped early."""

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.trainer.agree import first_says, greatest, meet
from services.trainer.child import Context, Refused
from shared import runs
from shared.schemas import Recipe
from shared.store import write_json

# What DPO adds to the curve, by TRL's names: how far chosen answers gained on rejected ones, and in what share of pairs.
REWARDS = {"reward_margin": "rewards/margins", "reward_accuracy": "rewards/accuracies"}
WHOLE = "whole.json"  # written last into a checkpoint: the size of each of its files
SMOOTHED = 10
GO_ON, CANCEL, STOP_EARLY = range(3)


class Curve(TrainerCallback):
    """Trainer events become run events; the run's wishes (cancel, target loss, patience) become the trainer's control."""

    def __init__(self, context: Context, recipe: Recipe, examples: int, tokens: int) -> None:
        """`examples` is how many the run trains on, `tokens` how many theirs are, padding left out."""
        self.context, self.recipe = context, recipe
        self.passes_per_step = recipe.batch_size * recipe.accumulation / examples
        self.tokens_per_step = self.passes_per_step * tokens
        # a step that is done again after a crash is told once, and warned of once
        told = list(runs.all_events(context.store, context.spec.id, "metric", "warning"))
        self.told = max((e["step"] for e in told if "loss" in e), default=0)
        self.told_validation = max((e["step"] for e in told if "validation_loss" in e), default=0)
        self.warned: set[str] = {e["kind"] for e in told if "kind" in e}
        self.since_point: list[float] = []  # the losses of the steps since the last point of the curve
        self.recent: deque[float] = deque(maxlen=SMOOTHED)
        self.best, self.worse = math.inf, 0
        self.clock, self.clock_step = time.monotonic(), 0
        self.stopped_because: str | None = None
        self.validation_loss: float | None = None
        self.validated_at: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Also takes in again what the checkpoint has of the steps before it, so that a resumed run goes on knowing them."""
        self.clock, self.clock_step = time.monotonic(), state.global_step
        for entry in state.log_history:
            if "loss" in entry:
                self._take(entry["step"], entry["loss"])
            elif "eval_loss" in entry:
                self._take_validation(entry["step"], entry["eval_loss"])
        if torch.cuda.is_available():
            self.context.log("The first step compiles kernels: a minute or so where none are kept from an earlier run.")
        self.context.event(
            "status",
            state="running",
            step=state.global_step,
            steps=state.max_steps,
            attempt=self.context.attempt,
            gpus=self.context.ranks,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.epoch = state.global_step * self.passes_per_step  # to the trainer, all passes are one
        stop_early = runs.stop_requested(self.context.store, self.context.spec.id)
        wish = first_says(CANCEL if self.context.stopping else STOP_EARLY if stop_early else GO_ON)
        self.context.stopping = wish == CANCEL
        if wish == CANCEL:
            control.should_save = control.should_training_stop = True
        elif wish == STOP_EARLY:
            control.should_evaluate = control.should_save = True
            self._stop(control, f"Asked to at step {state.global_step} of {state.max_steps}.")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            text = f"The loss is {loss} at step {state.global_step}."
            self.context.event("warning", kind="not_finite", text=text, step=state.global_step)
            raise Refused(
                f"The loss is {loss} at step {state.global_step}. Lower learning_rate (now {self.recipe.learning_rate:g}) "
                "and resume from the last checkpoint, or look for odd rows in the data set."
            )
        if self._take(state.global_step, loss):
            self.context.progress(state.global_step, state.max_steps, self.recent[-1])
            memory = greatest(memory_bytes())
            if state.global_step > self.told:
                self._tell(state, logs, self.recent[-1], memory)
            self._watch(state, control)

    def _take(self, step: int, loss: float) -> bool:
        """Take in the loss of a step; True at a point of the curve, which is the mean of the steps since the last one."""
        self.since_point.append(loss)
        if step > 1 and step % self.recipe.log_every:
            return False
        self.recent.append(sum(self.since_point) / len(self.since_point))
        self.since_point.clear()
        return True

    def _tell(self, state: TrainerState, logs: dict[str, Any], loss: float, memory: int) -> None:
        seconds = time.monotonic() - self.clock
        done = state.global_step - self.clock_step
        self.clock, self.clock_step = time.monotonic(), state.global_step
        self.context.event(
            "metric",
            step=state.global_step,
            loss=loss,
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            epoch=logs.get("epoch"),
            tokens_per_second=round(done * self.tokens_per_step / seconds, 1) if seconds > 0 else None,
            memory_bytes=memory,
            **rewards(logs, ""),
        )

    def _watch(self, state: TrainerState, control: TrainerControl) -> None:
        mean = sum(self.recent) / len(self.recent)
        if self.recipe.target_loss and len(self.recent) == SMOOTHED and mean <= self.recipe.target_loss:
            self._stop(
                control,
                f"The loss averaged {mean:.3f} over {SMOOTHED} points, at or below the target {self.recipe.target_loss:g}.",
            )
        if len(self.recent) == SMOOTHED and mean < self.recipe.overfit_below:
            self._warn(
                "overfitting",
                f"The training loss is {mean:.3f}, below {self.recipe.overfit_below:g}: the adapter may be reciting its rows. "
                "Use fewer steps, a lower rank or more data.",
                state,
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        self.clock = time.monotonic()  # validation is not training: leave it out of tokens per second
        self.clock_step = state.global_step
        if state.global_step > self.told_validation:
            self.context.event(
                "metric", step=state.global_step, validation_loss=loss, **rewards(metrics or {}, "eval_")
            )
        self._take_validation(state.global_step, loss)
        if self.recipe.patience and self.worse >= self.recipe.patience:
            self._stop(control, f"{self.worse} validations in a row without progress; the best was {self.best:.3f}.")
        elif self.worse >= 2:
            self._warn(
                "validation",
                f"The validation loss has not fallen below {self.best:.3f} for {self.worse} validations.",
                state,
            )

    def _take_validation(self, step: int, loss: float) -> None:
        self.validation_loss, self.validated_at = loss, step
        progress = loss < self.best - self.recipe.patience_threshold
        self.best, self.worse = (loss, 0) if progress else (self.best, self.worse + 1)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        meet()  # each rank has written its random state
        if folder.is_dir() and not self.context.rank:
            seal(folder)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            self.context.event("checkpoint", step=state.global_step, bytes=size)

    def _stop(self, control: TrainerControl, reason: str) -> None:
        if not self.stopped_because:
            self.stopped_because = reason
            self.context.log(f"Stopped early. {reason}")
        control.should_training_stop = True

    def _warn(self, kind: str, text: str, state: TrainerState) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            self.context.event("warning", kind=kind, text=text, step=state.global_step)


def rewards(logs: dict[str, Any], prefix: str) -> dict[str, float]:
    """The rewards among TRL's figures whose names begin with `prefix`, by our names; empty unless it is DPO."""
    found = {name: logs.get(prefix + theirs) for name, theirs in REWARDS.items()}
    return {("validation_" if prefix else "") + name: value for name, value in found.items() if value is not None}


def seal(checkpoint: Path) -> None:
    """Note the size of each file of a finished checkpoint, so that a truncated one can be told."""
    sizes = {p.relative_to(checkpoint).as_posix(): p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()}
    write_json(checkpoint / WHOLE, sizes)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    return next(whole_checkpoints(folder), None)


def whole_checkpoints(folder: Path) -> Iterator[Path]:
    """The checkpoints whose files are all there at their full size, the newest first; truncated and unsealed ones are
    passed over."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return (path for path in found if _whole(path))


def _whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / WHOLE).read_bytes())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def memory_bytes() -> int:
    """Peak memory of this process in bytes: reserved on the GPU where there is one, resident otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
