"""The queue: what runs now, and what waits, in the order in which it will start."""

from typing import Any

from flask import Blueprint, render_template

from services.dashboard import run_view, verdict
from services.dashboard.context import store
from services.dashboard.told import told
from shared import runs
from shared.store import Store

blueprint = Blueprint("queue_pages", __name__, url_prefix="/queue")


@blueprint.get("")
def queue() -> str:
    """What runs, and what waits."""
    running = [run_view.item(store(), run_id) for run_id, _ in runs.in_state(store(), "running")]
    lefts = {run["id"]: verdict.left(run, told(store(), run["id"])) for run in running}
    return render_template("queue.html", running=running, lefts=lefts, waiting=order(store()))


def order(store: Store) -> list[dict[str, Any]]:
    """The queued runs in the order in which they start."""
    return [run_view.item(store, run_id) for run_id, _ in reversed(runs.in_state(store, "queued"))]


def waiting(store: Store, run_id: str) -> tuple[int | None, list[dict[str, Any]]]:
    """(the place of a queued run, counted from 1; what runs and waits before it)."""
    running = [run_view.item(store, other) for other, _ in runs.in_state(store, "running")]
    queued = order(store)
    places = [run["id"] for run in queued]
    if run_id not in places:
        return None, running
    place = places.index(run_id)
    return place + 1, [*running, *queued[:place]]
