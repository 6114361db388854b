"""What the worker does beside its tasks: shows that it lives, and finds runs that a crash or a flushed queue left behind."""

import base64
import json
import os
import socket
import threading
import time
from typing import Any

import redis
from celery import Celery
from celery.worker import state as worker_state

from services.trainer import ranks, sweep, tasks
from shared import queue, runs
from shared.gpus import gpus
from shared.schemas import Status, now
from shared.settings import Settings
from shared.store import Store, write_json
from shared.versions import versions

PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "accelerate", "gguf")


def start(app: Celery, settings: Settings) -> None:
    """Start the watch in a thread of the worker's main process."""
    threading.Thread(target=_watch, args=(app, settings), daemon=True, name="recover").start()


def _watch(app: Celery, settings: Settings) -> None:
    store = Store(settings.data)
    since, seen = now(), []
    interval = min(settings.heartbeat_seconds, 5.0)
    while True:  # also while the worker stops: the run in hand has its GPU until its checkpoint is written
        held = in_hand()
        try:
            # nvidia-smi may fail for a moment; who shares the GPU must not take that for its absence
            seen = gpus() or seen
            show(store, since, held, seen)
            if not tasks.STOPPING.is_set():
                tend(app, settings, store)
                sweep.tend(app, store)
        except Exception:  # noqa: BLE001  # the watch must outlive a flushed queue or a full disk; the log has it
            tasks.logger.exception("the watch goes on")
        rest = time.monotonic() + interval
        while time.monotonic() < rest and in_hand() == held:  # who shares the GPU must hear of a run at once
            time.sleep(0.1)


def in_hand() -> tuple[str | None, str | None]:
    """The run that the worker has in hand, and its kind."""
    for request in list(worker_state.active_requests):
        return str(request.id).partition(".")[0], request.name.removeprefix("tandem.")
    return None, None


def show(store: Store, since: str, held: tuple[str | None, str | None], seen: list[dict[str, Any]]) -> None:
    """Write the worker's own file; its modification time is the heartbeat."""
    host = socket.gethostname()
    value = {"host": host, "pid": os.getpid(), "since": since, "busy": held[0], "kind": held[1], "gpus": seen}
    value["uses"] = _taken(store, held[0], len(seen))
    write_json(store.workers() / f"trainer-{host}.json", {**value, "versions": versions(*PACKAGES)})


def _taken(store: Store, run_id: str | None, visible: int) -> int | None:
    """How many GPUs the run takes; None without one, or before it is on disk."""
    if run_id is None or not runs.exists(store, run_id):
        return None
    return ranks.count(runs.read_spec(store, run_id).recipe, visible)


def tend(app: Celery, settings: Settings, store: Store) -> None:
    """Adopt messages that others sent, cancel what was revoked, and queue again what nobody holds."""
    adopt(settings, store)
    for run_id, status in reversed(runs.in_state(store, "queued", "running")):
        if _message(store, run_id, status) in worker_state.revoked and not runs.cancel_requested(store, run_id):
            runs.request_cancel(store, run_id)
        elif status.state == "running" and runs.silence(store, run_id) > settings.stale_seconds:
            _revive(app, settings, store, run_id)
    if not worker_state.reserved_requests and queue.waiting(settings) == 0:
        for run_id, status in reversed(runs.in_state(store, "queued")):
            if status.queued < _seconds_ago(2 * settings.heartbeat_seconds):
                queue.send(app, runs.read_spec(store, run_id), runs.attempts(store, run_id) + 1)
                runs.update(store, run_id, queued=now())


def _message(store: Store, run_id: str, status: Status) -> str:
    """The task id under which the attempt in hand was sent."""
    attempt = status.attempt if status.state == "running" else runs.attempts(store, run_id) + 1
    return queue.task_id(run_id, attempt)


def _revive(app: Celery, settings: Settings, store: Store, run_id: str) -> None:
    """The worker that held the run is silent: go on from its last checkpoint, a limited number of times."""
    tried = runs.attempts(store, run_id)
    if tried >= settings.max_attempts:
        reason = f"Its worker died {tried} times. log.txt in the run's folder has the last words of each."
        return runs.finish(store, run_id, "failed", reason)
    return tasks.again(app, store, run_id, "Its worker died; the run goes on from its last checkpoint.")


def adopt(settings: Settings, store: Store) -> None:
    """Make the directory of each job that another Celery client has put into the queue, so that it can be seen, and
    survives the queue. One that cannot work is left for the task to refuse."""
    try:
        with queue.connect(settings) as client:
            messages = client.lrange(settings.queue, 0, -1)
    except redis.RedisError:
        return
    for raw in messages:
        try:
            message = json.loads(raw)
            kind, run_id = message["headers"]["task"].removeprefix("tandem."), message["headers"]["id"]
            fields = json.loads(base64.b64decode(message["body"]))[1]
            if kind in queue.KINDS and "run_id" not in fields:
                tasks.ensure(settings, store, kind, run_id, fields)
        except (ValueError, LookupError, TypeError):
            continue


def cancel_revoked(settings: Settings, task_id: str, task_name: str) -> None:
    """A message was revoked before its run began: the run is cancelled, if there is one."""
    store = Store(settings.data)
    run_id = task_id.partition(".")[0]
    if task_name.startswith("tandem.") and runs.exists(store, run_id):
        status = runs.read_status(store, run_id)
        if status.state in ("queued", "cancelled") and not status.ended:
            runs.finish(store, run_id, "cancelled", "Revoked before it started.")


def _seconds_ago(seconds: float) -> str:
    moment = time.time() - seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
