"""A run on several GPUs, as so many processes on the CPU, learns what it does on one, and is one run."""

import os
import signal
from typing import Any

import pytest
from celery import Celery
from safetensors.torch import load_file

from services.trainer import exits
from shared import queue, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import wait_for
from tests.integration.conftest import Worker, ended
from tests.integration.test_jobs import alive, children, steps_told
from tests.integration.test_resume import VALUES as FAST
from tests.integration.test_resume import create, curve, finish, has_checkpoint, train

# Several starts of Python and torch, on what may be a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

VALUES: dict[str, Any] = {"log_every": 1, "save_every": 3, "gpus": 2}
STEPS = list(range(1, 11))


@pytest.fixture
def one(settings: Settings, store: Store, conversations: str) -> list[dict[str, Any]]:
    """The curve of the same recipe on one GPU, whose adapter is house@v1."""
    run_id = create(settings, conversations, **VALUES)
    finish(settings, run_id)
    return curve(store, run_id)


def assert_alike(store: Store, run_id: str, one: list[dict[str, Any]]) -> None:
    """The run's curve and its adapter, house@v2, are those of the run on one GPU, but for rounding."""
    several = curve(store, run_id)
    assert [event["step"] for event in several if "loss" in event] == STEPS, "each step is told once"
    assert [event["type"] for event in several] == [event["type"] for event in one]
    for here, there in zip(several, one, strict=True):
        assert (here["step"], here.get("learning_rate"), here.get("epoch")) == (
            there["step"],
            there.get("learning_rate"),
            there.get("epoch"),
        )
        for loss in ("loss", "validation_loss"):
            assert here.get(loss, 0) == pytest.approx(there.get(loss, 0), rel=1e-4)
    first, second = (load_file(store.adapter(f"house@v{n}") / "adapter_model.safetensors") for n in (1, 2))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (tensor - second[name]).norm() <= 1e-2 * tensor.norm(), name


@pytest.mark.parametrize(("shard", "gpus"), [("never", [2, 1]), ("always", [2, 1, 2])])
def test_a_run_moves_between_one_gpu_and_two_and_learns_what_one_does(
    settings: Settings,
    store: Store,
    conversations: str,
    one: list[dict[str, Any]],
    shard: str,
    gpus: list[int],
) -> None:
    run_id = create(settings, conversations, **VALUES, shard=shard)
    told = 0
    for number in gpus[:-1]:
        code = train(settings, run_id, number, lambda step=told + 1: has_checkpoint(settings, run_id, step))
        assert code == exits.STOPPED
        told = max(event["step"] for event in curve(store, run_id))
        assert (store.run(run_id) / "checkpoints" / f"checkpoint-{told}" / "whole.json").exists()
    finish(settings, run_id, gpus[-1])
    begun = [event["gpus"] for event in runs.all_events(store, run_id, "status") if "gpus" in event]
    assert begun == gpus
    kept = [event["kept"] / event["layers"] for event in runs.all_events(store, run_id, "sharded")]
    assert kept == ([0.5, 0.5] if shard == "always" else []), "one GPU has all of the base"
    assert_alike(store, run_id, one)


def test_when_one_process_is_killed_all_end_and_the_worker_goes_on_with_all(
    settings: Settings,
    store: Store,
    celery: Celery,
    worker: Worker,
    conversations: str,
) -> None:
    job = Job(dataset=conversations, recipe="tiny", overrides={**FAST, **VALUES, "steps": 5}, name="house")
    run_id = queue.submit(settings, celery, "train", job).id
    wait_for(lambda: runs.exists(store, run_id) and has_checkpoint(settings, run_id), 240, "a checkpoint")
    first, second = children(run_id)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: not alive(first) and not alive(second), 10, "both end")
    status = ended(store, run_id, 240)
    assert (status.state, status.attempt, status.result) == ("succeeded", 2, "house@v1")
    assert steps_told(store, run_id) == STEPS[:5]
    assert not list(runs.all_events(store, run_id, "error")), "the other one's is none of its own"
    begun = [event["gpus"] for event in runs.all_events(store, run_id, "status") if "gpus" in event]
    assert begun == [2, 2]


def test_what_all_ranks_refuse_is_told_once(settings: Settings, store: Store, conversations: str) -> None:
    run_id = create(settings, conversations, **VALUES, max_length=32)
    assert train(settings, run_id, 2) == exits.FAILED
    assert ["Not one token" in event["reason"] for event in runs.all_events(store, run_id, "error")] == [True]
