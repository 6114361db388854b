"""The queue: what runs now, and what waits, in the order in which it will start."""

from typing import Any

from flask import Blueprint, render_template

from services.dashboard.api.queue import views
from services.dashboard.context import here, store
from services.dashboard.views import run_view, verdict
from services.dashboard.views.told import told
from shared import runs

blueprint = Blueprint("queue_pages", __name__, url_prefix="/queue")


@blueprint.get("")
def queue() -> str:
    """What runs, and what waits."""
    running = [{**run_view.item(store(), run_id), "story": told(store(), run_id)} for run_id in _running()]
    return render_template(
        "queue.html",
        running=running,
        waiting=views(),
        left=verdict.left,
        seconds=verdict.seconds_left,
        redis_away=here().watch.latest().waiting is None,
    )


def before(run_id: str) -> tuple[int | None, list[dict[str, Any]]]:
    """(the place of a queued run, counted from 1; what runs and waits before it)."""
    running, waiting = [run_view.item(store(), other) for other in _running()], views()
    place = next((item["position"] for item in waiting if item["id"] == run_id), None)
    return place, [*running, *waiting[: (place or 1) - 1]]


def _running() -> list[str]:
    return [run_id for run_id, _ in reversed(runs.in_state(store(), "running"))]
