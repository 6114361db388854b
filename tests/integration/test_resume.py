"""A run that was stopped, or killed, and resumed ends in the same adapter as one that was not, byte for byte."""

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from services.trainer import exits, ranks
from services.trainer.supervise import supervise
from shared import queue, registry, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import environment

# Several starts of Python and torch, on what may be a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# 35 training rows, 8 a step: each pass begins in the middle of a step. No checkpoint, validation or point of the
# curve falls where the others do.
VALUES = {
    "steps": 10,
    "batch_size": 4,
    "accumulation": 2,
    "save_every": 6,
    "evaluate_every": 5,
    "log_every": 4,
    "patience": 9,
    "overfit_below": 100,
}


def create(settings: Settings, dataset: str, **more: Any) -> str:
    store, job = Store(settings.data), Job(dataset=dataset, recipe="tiny", overrides={**VALUES, **more}, name="house")
    job, recipe = queue.prepare(settings, store, "train", job)
    return runs.create(store, runs.new_id("train"), "train", job, recipe).id


def train(settings: Settings, run_id: str, gpus: int = 1, stop: Callable[[], bool] = lambda: False) -> int:
    """Run the run's child, or one for each of several GPUs, as the worker does, and return the exit code."""
    return supervise(
        [sys.executable, "-m", "services.trainer.train", run_id],
        Store(settings.data).run(run_id) / "log.txt",
        environments=[{**environment(settings), **more} for more in ranks.environments(gpus)],
        beat=lambda: None,
        beat_seconds=0.1,
        stop=stop,
        grace_seconds=60,
    )


def finish(settings: Settings, run_id: str, gpus: int = 1) -> None:
    code = train(settings, run_id, gpus)
    assert code == 0, (Store(settings.data).run(run_id) / "log.txt").read_text()[-3000:]


def has_checkpoint(settings: Settings, run_id: str, step: int = 1) -> bool:
    return any(event["step"] >= step for event in runs.all_events(Store(settings.data), run_id, "checkpoint"))


def kill(run_id: str, which: int = 0) -> None:
    """kill -9 of one of the run's children, in the order in which they were started."""
    with contextlib.suppress(psutil.NoSuchProcess):  # asked again, before its end was seen
        [child for child in psutil.Process().children() if run_id in child.cmdline()][which].kill()


def curve(store: Store, run_id: str) -> list[dict[str, Any]]:
    """What was told of the run's learning, without what depends on the clock and the machine."""
    measured = {"time", "tokens_per_second", "memory_bytes"}
    told = runs.all_events(store, run_id, "metric", "warning")
    return [{key: value for key, value in event.items() if key not in measured} for event in told]


@pytest.mark.parametrize(
    ("end", "code", "values"),
    [
        (kill, -signal.SIGKILL, {"packing": True}),
        (lambda _: True, exits.STOPPED, {"train_experts": False, "lora_dropout": 0.2}),  # draws from the random state
    ],
    ids=["killed, rows packed", "stopped, with dropout"],
)
def test_a_resumed_run_ends_as_if_nothing_had_been(
    settings: Settings, store: Store, conversations: str, end: Callable[[str], Any], code: int, values: dict[str, Any]
) -> None:
    whole, broken = create(settings, conversations, **values), create(settings, conversations, **values)
    finish(settings, whole)
    assert train(settings, broken, stop=lambda: has_checkpoint(settings, broken) and end(broken)) == code
    assert max(event["step"] for event in curve(store, broken)) < VALUES["steps"]
    finish(settings, broken)
    assert curve(store, broken) == curve(store, whole)
    assert {event["step"] for event in curve(store, whole)} == {1, 4, 5, 8, 10}
    weights = [store.adapter(f"house@v{n}") / "adapter_model.safetensors" for n in (1, 2)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    first, second = (registry.adapter_card(store, f"house@v{n}") for n in (1, 2))
    assert (second.loss_last, second.validation_loss) == (first.loss_last, first.validation_loss)
