"""Sweeps: asked for, listed, cancelled, deleted. Their trials are runs, and are changed as such."""

import contextlib
from typing import Any

from flask import g
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import intake
from services.dashboard.api.models import Sweep, SweepPage
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import here, store
from services.dashboard.errors import problem
from shared import sweeps
from shared.schemas import ENDED
from shared.store import NotFound
from shared.sweep_schemas import SweepJob

api = APIBlueprint("sweeps", __name__, url_prefix="/api/sweeps")


class SweepPath(BaseModel):
    sweep_id: str = Field(description="from the list of sweeps")


@api.get("", responses={200: SweepPage, **problem()})
def list_sweeps(query: Paging) -> dict[str, Any]:
    """Sweeps, the newest first."""
    return page(views(), query)


@api.post("", responses={201: Sweep, **problem(400, 404, 413)})
def create_sweep(body: SweepJob) -> tuple[dict[str, Any], int]:
    """Ask for a sweep. The trainer queues its trials one after another, and keeps the best one's adapter."""
    spec = sweeps.submit(here().settings, store(), body, g.request_id)
    return view(spec.id), 201


@api.get("/<sweep_id>", responses={200: Sweep, **problem(400, 404)})
def read_sweep(path: SweepPath) -> dict[str, Any]:
    """All that is known of a sweep: its trials, the best one, and which values decide."""
    return view(path.sweep_id)


@api.post("/<sweep_id>/cancel", responses={200: Sweep, **problem(400, 404, 409)})
def cancel(path: SweepPath) -> dict[str, Any]:
    """End a sweep. The trial in hand is cancelled; the best so far is kept."""
    sweeps.request_cancel(store(), path.sweep_id)
    return view(path.sweep_id)


@api.delete("/<sweep_id>", responses={204: None, **problem(400, 404, 409)})
def delete_sweep(path: SweepPath) -> tuple[str, int]:
    """Delete a sweep that has ended: its table and its study. Its runs and what they published stay."""
    sweeps.check_ended(store(), path.sweep_id)
    intake.remove(store(), store().sweep(path.sweep_id), store().sweeps())
    return "", 204


def views() -> list[dict[str, Any]]:
    """All sweeps as lines of the list."""
    found = []
    for sweep_id in sweeps.ids(store()):
        with contextlib.suppress(NotFound):  # deleted while we look
            found.append(_item(sweep_id))
    return found


def view(sweep_id: str) -> dict[str, Any]:
    """A sweep with what was asked and all of its trials. Raises NotFound."""
    spec, status = sweeps.read_spec(store(), sweep_id), sweeps.read_status(store(), sweep_id)
    told = status.model_dump(mode="json")
    asked = {"spec": spec.model_dump(mode="json"), "cancel_requested": sweeps.cancel_requested(store(), sweep_id)}
    return {**_item(sweep_id), "trials": told["trials"], "importances": told["importances"], **asked}


def _item(sweep_id: str) -> dict[str, Any]:
    spec, status = sweeps.read_spec(store(), sweep_id), sweeps.read_status(store(), sweep_id)
    best = next((trial for trial in status.trials if trial.number == status.best), None)
    return {
        "id": spec.id,
        "created": spec.created,
        "name": spec.job.name,
        "dataset": spec.job.dataset,
        "recipe_name": spec.job.recipe,
        "searched": list(spec.search),
        "state": status.state,
        "reason": status.reason,
        "asked": spec.trials,
        "done": sum(trial.state in ENDED for trial in status.trials),
        "pruned": sum(trial.pruned for trial in status.trials),
        "best": best and best.model_dump(mode="json"),
        "ended": status.ended,
    }
