"""The Celery worker: `celery -A services.trainer.app worker`. Tasks are registered, recovery starts with the worker."""

from typing import Any

from celery.signals import task_revoked, worker_process_init, worker_ready, worker_shutting_down

from services.trainer import log, metrics, recover, tasks
from services.trainer.supervise import die_with_parent
from shared import settings as environment
from shared.queue import KINDS, celery_app

settings = environment.load()
app = celery_app(settings)
log.register(settings)
for kind in KINDS:
    tasks.register(app, settings, kind)


@worker_process_init.connect
def _bind_to_worker(**_: Any) -> None:
    """The pool process ends with the worker, and the run's child with the pool process: nothing trains unwatched."""
    die_with_parent()


@worker_ready.connect
def _recover(**_: Any) -> None:
    recover.start(app, settings)
    metrics.start(settings)


@worker_shutting_down.connect
def _give_back(**_: Any) -> None:
    """Stop the run in hand at its next step and leave it queued, so that the next worker goes on with it."""
    tasks.STOPPING.set()


@task_revoked.connect
def _revoked(request: Any = None, **_: Any) -> None:
    recover.cancel_revoked(
        settings, str(request.id), request.task_name if hasattr(request, "task_name") else request.task
    )
