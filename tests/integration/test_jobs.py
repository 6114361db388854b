"""A job from the queue to its end: done once, whatever happens to the worker, the queue or the message."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from shared import queue, registry, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import wait_for
from tests.integration.conftest import Worker, ended

pytestmark = pytest.mark.slow

STEPS = 12
FAST = {"steps": STEPS, "save_every": 4, "evaluate_every": 6, "batch_size": 2, "validation_share": 0.1}


def submit(settings: Settings, celery: Celery, dataset: str, **more: object) -> str:
    job = Job(dataset=dataset, recipe="tiny", overrides={**FAST, **more}, name="house")
    return queue.submit(settings, celery, "train", job).id


def steps_told(store: Store, run_id: str) -> list[int]:
    return [event["step"] for event in runs.all_events(store, run_id, "metric") if "loss" in event]


def at_step(store: Store, run_id: str, step: int) -> bool:
    return runs.exists(store, run_id) and runs.read_status(store, run_id).step >= step


def children(run_id: str) -> list[int]:
    command = ["pgrep", "-f", f"services.trainer.train {run_id}"]
    return [int(pid) for pid in subprocess.run(command, capture_output=True, text=True).stdout.split()]


def is_child_of(store: Store, run_id: str, attempt: int) -> bool:
    """Whether the child of an attempt works; its predecessor may still be seen for a moment after it was killed."""
    status = runs.read_status(store, run_id)
    return status.state == "running" and status.attempt == attempt and bool(children(run_id))


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_run_trains_proves_and_publishes(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop)
    status = ended(store, run_id)
    assert (status.state, status.result, status.reason) == ("succeeded", "house@v1", None)
    assert steps_told(store, run_id) == list(range(1, STEPS + 1))
    card = registry.adapter_card(store, "house@v1")
    assert card.loss_last < card.loss_first
    assert card.proof["norm_B"] > 0 and card.proof["logits_moved"] > 0
    assert card.proof["trainable"]["experts"]["tensors"] > 0 and card.proof["trainable"]["attention"]["tensors"] > 0
    assert card.sha256 == registry.sha256(store.adapter("house@v1") / "adapter_model.safetensors")
    assert AsyncResult(run_id, app=celery).get(timeout=10) == "house@v1"


def test_the_workers_file_tells_at_once_what_it_has_in_hand(
    settings: Settings, store: Store, celery: Celery, workshop: str, tmp_path: Path
) -> None:
    """Not at its next heartbeat, which is five seconds away: who shares the GPU has to leave it."""
    settings = settings.model_copy(update={"heartbeat_seconds": 60.0, "stale_seconds": 120.0})
    worker, path = Worker(settings, tmp_path / "worker.log"), store.workers() / f"trainer-{socket.gethostname()}.json"
    worker.start()
    try:
        wait_for(path.exists, 30, "the worker shows itself")
        for expected in ("succeeded", "cancelled"):
            run_id = submit(settings, celery, workshop, steps=1 if expected == "succeeded" else 500)
            wait_for(lambda run_id=run_id: runs.read_status(store, run_id).state == "running", 30, "it runs")
            wait_for(lambda run_id=run_id: told(path) == (run_id, "train"), 1, "the file names the run and its kind")
            if expected == "cancelled":
                wait_for(lambda run_id=run_id: at_step(store, run_id, 1), 90, "step 1")
                runs.request_cancel(store, run_id)
            assert ended(store, run_id).state == expected
            wait_for(lambda: told(path) == (None, None), 1, "the file names none")
    finally:
        worker.stop()


def told(path: Path) -> tuple[str | None, str | None]:
    value = json.loads(path.read_text())
    return value["busy"], value["kind"]


def test_a_run_stopped_early_publishes_the_best_that_it_has(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop, steps=500, save_every=4, evaluate_every=4, keep_checkpoints=100)
    wait_for(lambda: at_step(store, run_id, 9), 90, "step 9")
    runs.append_event(store, run_id, "metric", step=4, validation_loss=0.0001)  # as if it had been best then
    runs.request_stop(store, run_id)
    status = ended(store, run_id)
    assert status.state == "succeeded" and status.result == "house@v1"
    assert "Stopped early. Asked to at step" in status.reason and "checkpoint of step 4" in status.reason
    assert status.step < 500 and registry.adapter_card(store, "house@v1").validation_loss == 0.0001


def test_a_killed_worker_is_resumed_and_the_run_finishes_once(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop)
    wait_for(lambda: at_step(store, run_id, 6), 90, "step 6")
    child = children(run_id)[0]
    worker.kill()
    wait_for(lambda: not alive(child), 5, "the child ends, too")
    worker.start()
    status = ended(store, run_id)
    assert (status.state, status.attempt) == ("succeeded", 2)
    assert steps_told(store, run_id) == list(range(1, STEPS + 1)), "each step is told once"
    assert [card.reference for card in registry.adapters(store)] == ["house@v1"]
    assert registry.adapter_card(store, "house@v1").steps == STEPS


def test_a_killed_child_is_resumed_and_the_run_finishes_once(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop)
    wait_for(lambda: at_step(store, run_id, 5), 90, "step 5")
    os.kill(children(run_id)[0], signal.SIGKILL)
    assert ended(store, run_id).state == "succeeded"
    assert runs.attempts(store, run_id) == 2
    assert sorted(set(steps_told(store, run_id))) == list(range(1, STEPS + 1))
    assert AsyncResult(run_id, app=celery).get(timeout=10) == "house@v1"
    assert not (store.run(run_id) / "reserve").exists()


def test_a_child_that_is_killed_again_and_again_fails_at_last(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop, steps=500)
    for attempt in range(1, settings.max_attempts + 1):
        wait_for(lambda attempt=attempt: is_child_of(store, run_id, attempt), 90, f"attempt {attempt}")
        os.kill(children(run_id)[0], signal.SIGKILL)
    status = ended(store, run_id)
    assert status.state == "failed" and "signal 9" in str(status.reason)
    with pytest.raises(Exception, match="signal 9"):
        AsyncResult(run_id, app=celery).get(timeout=10)


def test_a_message_delivered_twice_works_once(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop, steps=4)
    queue.send(celery, runs.read_spec(store, run_id), 1)
    assert ended(store, run_id).state == "succeeded"
    queue.send(celery, runs.read_spec(store, run_id), 1)
    wait_for(lambda: queue.waiting(settings) == 0, 20, "the queue is empty")
    assert runs.attempts(store, run_id) == 1
    assert len(registry.adapters(store)) == 1
    assert AsyncResult(run_id, app=celery).get(timeout=10) == "house@v1"


def test_a_flushed_queue_loses_nothing(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    first = submit(settings, celery, workshop)
    second = submit(settings, celery, workshop, steps=3)
    wait_for(lambda: at_step(store, first, 2), 90, "step 2")
    redis.Redis.from_url(settings.redis_url).flushall()
    assert ended(store, first).state == "succeeded"
    assert ended(store, second).state == "succeeded"
    assert runs.attempts(store, first) == runs.attempts(store, second) == 1


def test_cancel_keeps_a_checkpoint_and_resume_goes_on_from_it(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop)
    wait_for(lambda: at_step(store, run_id, 5), 90, "step 5")
    runs.request_cancel(store, run_id)
    status = ended(store, run_id)
    assert status.state == "cancelled" and 5 <= status.step < STEPS
    assert (store.run(run_id) / "checkpoints" / f"checkpoint-{status.step}" / "whole.json").exists()
    queue.send(celery, runs.read_spec(store, run_id), runs.resume(store, run_id))
    status = ended(store, run_id)
    assert (status.state, status.attempt) == ("succeeded", 2)
    assert steps_told(store, run_id) == list(range(1, STEPS + 1))
    texts = [event["text"] for event in runs.all_events(store, run_id, "log")]
    assert any(text.startswith("Going on from checkpoint-") for text in texts)


def test_a_stopped_worker_leaves_the_run_to_the_next_one(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop)
    wait_for(lambda: at_step(store, run_id, 3), 90, "step 3")
    worker.kill(signal.SIGTERM)
    assert runs.read_status(store, run_id).state == "queued"
    worker.start()
    assert ended(store, run_id).state == "succeeded"
    assert steps_told(store, run_id) == list(range(1, STEPS + 1))


def test_a_truncated_checkpoint_is_passed_over(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop)
    wait_for(lambda: at_step(store, run_id, 9), 90, "step 9")
    worker.kill()
    broken = store.run(run_id) / "checkpoints" / "checkpoint-8"
    with open(broken / "adapter_model.safetensors", "r+b") as file:
        file.truncate(1000)
    worker.start()
    assert ended(store, run_id).state == "succeeded"
    texts = [event["text"] for event in runs.all_events(store, run_id, "log")]
    assert "Going on from checkpoint-4." in texts


def test_nothing_supervised_is_refused(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop, max_length=32)
    status = ended(store, run_id)
    assert status.state == "failed" and "Not one token" in str(status.reason)
    assert not registry.adapters(store)


def test_an_adapter_that_changes_nothing_is_not_published(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop, steps=2, learning_rate=1e-12, evaluate_every=None)
    status = ended(store, run_id)
    assert status.state == "failed" and "Nothing was published" in str(status.reason)
    assert not registry.adapters(store)


def test_a_run_out_of_memory_goes_on_with_half_the_micro_batch_and_the_same_effective_one(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    run_id = submit(settings, celery, workshop, batch_size=4, accumulation=2, steps=10)
    wait_for(lambda: at_step(store, run_id, 5), 90, "step 5")
    child = psutil.Process(children(run_id)[0])
    child.rlimit(psutil.RLIMIT_AS, (child.memory_info().vms, -1))  # from now on it gets no more
    status = ended(store, run_id)
    assert (status.state, status.attempt) == ("succeeded", 2), status.reason
    halved = next(runs.all_events(store, run_id, "halved"))
    assert (halved["batch_size"], halved["accumulation"]) == (2, 4)
    said = [e.get("reason", "") for e in runs.all_events(store, run_id, "status")]
    assert any("Out of memory" in reason and "same effective batch" in reason for reason in said)
    assert sorted(set(steps_told(store, run_id))) == list(range(1, 11))
