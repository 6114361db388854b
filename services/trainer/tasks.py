"""Thin tasks: claim the run, start its child process, watch it, record how it ended."""

import multiprocessing
import os
import signal
import socket
import sys
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, TaskRevokedError
from celery.utils.log import get_task_logger
from pydantic import ValidationError

from services.trainer import exits, ranks
from services.trainer.supervise import supervise
from shared import memory, queue, runs
from shared.gpus import gpus
from shared.queue import JobRefused
from shared.schemas import ENDED, Job, Kind, now
from shared.settings import Settings
from shared.store import Store

STOPPING = multiprocessing.Event()  # set by the worker's main process, seen by its pool process
logger = get_task_logger(__name__)


class RunFailed(RuntimeError):
    """What `AsyncResult.get()` raises for a run that failed; the message is the reason."""


def register(app: Celery, settings: Settings, kind: Kind) -> None:
    """Register the task `tandem.<kind>`; its arguments are the fields of Job, its id is the run's."""

    def task(self: Task, run_id: str | None = None, attempt: int = 1, **fields: Any) -> str | None:
        return perform(self, settings, kind, run_id or self.request.id, attempt, fields)

    app.task(task, name=f"tandem.{kind}", bind=True, throws=(RunFailed, ValueError, LookupError))


def perform(
    task: Task, settings: Settings, kind: Kind, run_id: str, attempt: int, fields: dict[str, Any]
) -> str | None:
    """Do one attempt of a run and return what it published.

    Raises RunFailed with the reason if it fails, Ignore if the message is a repetition or the run was cancelled."""
    store = Store(settings.data)
    ensure(settings, store, kind, run_id, fields)
    if runs.read_status(store, run_id).state == "cancelled":
        if not runs.read_status(store, run_id).ended:
            runs.finish(store, run_id, "cancelled", "Cancelled before it started.")
        return outcome(task, store, run_id)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    if not runs.claim(store, run_id, attempt, worker):
        logger.info("attempt %s is not to be had, so this message is a repetition", attempt)
        return outcome(task, store, run_id)
    logger.info("attempt %s begins", attempt)
    try:
        runs.append_event(store, run_id, "status", state="running", attempt=attempt, worker=worker)
        runs.update(
            store, run_id, state="running", attempt=attempt, worker=worker, started=now(), ended=None, reason=None
        )
    except OSError:  # a full disk: it stays queued, and is sent again until there is room
        runs.unclaim(store, run_id, attempt)
        raise
    kills = exits.oom_kills()
    code = start(settings, store, kind, run_id, attempt)
    starved = exits.oom_kills() > kills
    over = runs.cancel_requested(store, run_id) or attempt >= settings.max_attempts
    if not over and (why := second_chance(store, run_id, code, starved)):
        again(task.app, store, run_id, why)
    else:
        record(store, run_id, attempt, code, starved)
    return outcome(task, store, run_id)


def ensure(settings: Settings, store: Store, kind: Kind, run_id: str, fields: dict[str, Any]) -> None:
    """Make the run's directory from the message if whoever sent it did not. Raises JobRefused and its like."""
    if runs.exists(store, run_id):
        return
    try:
        job = Job.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise JobRefused(f"tandem.{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    job, recipe = queue.prepare(settings, store, kind, job)
    runs.create(store, run_id, kind, job, recipe)


def start(settings: Settings, store: Store, kind: Kind, run_id: str, attempt: int) -> int:
    """Run the child of an attempt to its end and return its exit code."""
    recipe = runs.read_spec(store, run_id).recipe
    taken = ranks.count(recipe, len(gpus()))
    if recipe and taken < recipe.gpus:
        text = (
            f"The recipe asks for {recipe.gpus} GPUs, of which {taken} can be taken here. The run goes on with fewer."
        )
        runs.append_event(store, run_id, "warning", kind="gpus", text=text)
    terminated: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))  # revoke(terminate=True)

    def stop() -> bool:
        if terminated:
            (store.run(run_id) / "cancel").touch()
        return bool(terminated) or STOPPING.is_set() or runs.cancel_requested(store, run_id)

    try:
        return supervise(
            [sys.executable, "-m", f"services.trainer.{kind}", run_id],
            store.run(run_id) / "log.txt",
            environments=ranks.environments(taken),
            beat=lambda: runs.heartbeat(store, run_id, attempt),
            beat_seconds=settings.heartbeat_seconds,
            stop=stop,
            grace_seconds=settings.stop_grace_seconds,
        )
    finally:
        signal.signal(signal.SIGTERM, previous)


def record(store: Store, run_id: str, attempt: int, code: int, starved: bool) -> None:
    """Turn the child's exit code into the run's outcome; `starved` is whether the kernel killed for want of memory."""
    own = list(runs.all_events(store, run_id, "status", "published", "error"))
    start_of_attempt = max(i for i, e in enumerate(own) if e.get("attempt") == attempt and e["type"] == "status")
    events = own[start_of_attempt:]
    stopped = code in (exits.STOPPED, -signal.SIGTERM)  # a child that is still importing ends by the signal itself
    if code == exits.OK:
        published = next((e for e in reversed(events) if e["type"] == "published"), {})
        runs.finish(store, run_id, "succeeded", published.get("reason"), published.get("name"))
    elif stopped and STOPPING.is_set() and not runs.cancel_requested(store, run_id):
        runs.append_event(
            store, run_id, "status", state="queued", reason="The worker was stopped; the next one goes on."
        )
        runs.requeue(store, run_id)
    elif stopped:
        step = runs.read_status(store, run_id).step
        said = runs.cancel_reason(store, run_id) or f"Cancelled after step {step}; resume goes on from there."
        runs.finish(store, run_id, "cancelled", said)
    else:
        said = next((e["reason"] for e in reversed(events) if e["type"] == "error"), None)
        runs.finish(store, run_id, "failed", said or exits.reason(code, store.run(run_id) / "log.txt", starved))


def again(app: Celery, store: Store, run_id: str, why: str) -> None:
    """Queue the run for one more attempt, and send its message; `why` is what its events say."""
    runs.append_event(store, run_id, "status", state="queued", reason=why)
    attempt = runs.requeue(store, run_id)
    queue.send(app, runs.read_spec(store, run_id), attempt)


def second_chance(store: Store, run_id: str, code: int, starved: bool) -> str | None:
    """Why a run whose child ended with `code` is worth another attempt; None if it is not. One that ran out of memory, its
    GPU's or its container's, gets a smaller micro batch for it."""
    if code == exits.OUT_OF_MEMORY or (code == -signal.SIGKILL and starved):
        had = list(runs.all_events(store, run_id, "micro_batch"))[-1:]
        smaller = memory.halved(had[0]) if had else None
        if smaller is None:
            return None
        runs.append_event(store, run_id, "halved", **smaller)
        return (
            f"Out of memory: the run goes on from its last checkpoint with {smaller['batch_size']} in a micro batch and "
            f"{smaller['accumulation']} of them a step, which is the same effective batch."
        )
    return "Its process was killed; the run goes on from its last checkpoint." if code == -signal.SIGKILL else None


def outcome(task: Task, store: Store, run_id: str) -> str | None:
    """What the run ended in, as Celery says it, also under the run's own id when this attempt had another."""
    status = runs.read_status(store, run_id)
    if status.state not in ENDED:
        raise Ignore()
    mirrored = task.request.id != run_id
    if status.state == "succeeded":
        if mirrored:
            task.backend.store_result(run_id, status.result, "SUCCESS")
        return status.result
    if status.state == "cancelled":
        for task_id in {run_id, task.request.id}:
            task.backend.store_result(task_id, TaskRevokedError(status.reason or "cancelled"), "REVOKED")
        raise Ignore()
    failure = RunFailed(status.reason)
    if mirrored:
        task.backend.store_result(run_id, failure, "FAILURE")
    raise failure
