"""The queue: the runs that wait, in the order in which they will start, and how one is moved."""

from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import Field

from services.dashboard.api.models import QueuePage
from services.dashboard.api.paging import Paging, page
from services.dashboard.api.runs import RunPath
from services.dashboard.context import here, store
from services.dashboard.errors import problem
from services.dashboard.views import run_view
from shared import queue, runs
from shared.runs import RunConflict
from shared.schemas import Strict

api = APIBlueprint("queue", __name__, url_prefix="/api/queue")


class MoveBody(Strict):
    to: int = Field(ge=1, description="place in the queue; 1 starts next")


@api.get("", responses={200: QueuePage, **problem()})
def read_queue(query: Paging) -> dict[str, Any]:
    """The queued runs, the next to start first."""
    return page(views(), query)


@api.post("/<run_id>/move", responses={200: QueuePage, **problem(400, 404, 409, 413, 503)})
def move(path: RunPath, body: MoveBody) -> dict[str, Any]:
    """Put a queued run at another place of the queue."""
    state = runs.read_status(store(), path.run_id).state
    if state != "queued":
        raise RunConflict(f"Run {path.run_id} is {state}; only a queued run can be moved.")
    queue.move(here().settings, store(), path.run_id, body.to)
    return page(views(), Paging(limit=50, offset=0))


def views() -> list[dict[str, Any]]:
    """All queued runs as the API shows them."""
    waiting = queue.order(here().settings, store())
    return [{**run_view.item(store(), run_id), "position": place} for place, run_id in enumerate(waiting, 1)]
