"""The worker's log: what is said about a run names the run, and the HTTP request that asked for it."""

import logging
from collections.abc import Callable
from typing import Any

from celery import current_task
from celery.signals import setup_logging

from shared import logs, runs
from shared.settings import Settings
from shared.store import BadName, NotFound, Store


def register(settings: Settings) -> None:
    """Have Celery log as every service does, in place of its own setup."""

    @setup_logging.connect(weak=False)
    def _to_stdout(**_: Any) -> None:
        logs.to_stdout("trainer").addFilter(about_run(Store(settings.data)))


def about_run(store: Store) -> Callable[[logging.LogRecord], bool]:
    """A filter that lets every line pass and adds `run` and `request_id` to those that are about a task."""

    def add(record: logging.LogRecord) -> bool:
        task = getattr(record, "data", None) or (current_task and {"id": current_task.request.id})
        if isinstance(task, dict) and task.get("id"):
            run_id = str(task["id"]).partition(".")[0]
            fields = {"run": run_id, "request_id": _request_id(store, run_id)}
            record.fields = {**fields, **getattr(record, "fields", {})}
        return True

    return add


def _request_id(store: Store, run_id: str) -> str | None:
    try:
        return runs.read_spec(store, run_id).request_id
    except (NotFound, BadName):  # it was sent by another Celery client, and is not on disk yet
        return None
