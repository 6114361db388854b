"""Runs: asked for, listed, cancelled, resumed, cloned; their events, curve and log by page. `sse` streams the events."""

import threading
from typing import Any

from flask import g
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import intake
from services.dashboard.api.models import Events, Log, Metrics, Run, RunPage
from services.dashboard.api.paging import Paging, whole
from services.dashboard.context import here, store
from services.dashboard.errors import Refusal, problem
from services.dashboard.views import run_view
from services.dashboard.watch import memory
from shared import queue, runs
from shared.estimate import Estimate, estimate
from shared.schemas import ENDED, Job, Kind, State, Strict
from shared.store import NotFound

LOG_BYTES = 64 << 10
api = APIBlueprint("runs", __name__, url_prefix="/api/runs")
_changing = threading.Lock()  # a run is resumed or deleted, never both


class ListQuery(Paging):
    state: State | None = None
    kind: Kind | None = None
    q: str = Field("", max_length=200, description="a part of the id, name, data set, adapter, repository or recipe")


class JobBody(Job):
    kind: Kind


class CloneBody(Strict):
    overrides: dict[str, Any] = Field(default_factory=dict, description="values that replace those of the run's recipe")


class RunPath(BaseModel):
    run_id: str


class EventsQuery(BaseModel):
    after: int = Field(0, ge=0, description="the offset that came with the last event read")
    limit: int = Field(1000, ge=1, le=10_000)


class MetricsQuery(BaseModel):
    points: int = Field(1000, ge=2, le=20_000, description="the most rows of the curve; the last one is always there")


class LogQuery(BaseModel):
    after: int | None = Field(None, ge=0, description="byte to read from; by default the end of the log, less `limit`")
    limit: int = Field(LOG_BYTES, ge=1, le=1 << 20, description="bytes")


@api.get("", responses={200: RunPage, **problem()})
def list_runs(query: ListQuery) -> dict[str, Any]:
    """Runs, the newest first."""
    items, total = run_view.select(store(), query.state, query.kind, query.q, query.offset, query.limit)
    return whole(items, total, query)


@api.post("", responses={201: Run, **problem(400, 404, 413, 503)})
def create_run(body: JobBody) -> tuple[dict[str, Any], int]:
    """Queue a job. With 503 the run is kept, named in `details`, and sent when the queue is back."""
    job = Job.model_validate(body.model_dump(exclude={"kind"}))
    return _submit(body.kind, job), 201


@api.post("/estimate", responses={200: Estimate, **problem(400, 404, 413)})
def estimate_run(body: JobBody) -> dict[str, Any]:
    """What a training run would take: steps, time and memory. Refused with the reason for which it would be refused."""
    if body.kind != "train":
        raise Refusal(400, "bad_request", f"Only training is estimated, and this is of the kind {body.kind!r}.")
    job, recipe = queue.prepare(
        here().settings, store(), "train", Job.model_validate(body.model_dump(exclude={"kind"}))
    )
    assert recipe is not None
    gpu = max((gpu["memory_total"] for gpu in here().watch.latest().gpus), default=None)
    most = int(here().settings.train_memory_gib * 2**30)
    available = min(gpu, most or gpu) if gpu else memory()[1]
    return estimate(here().settings, store(), job, recipe, available, on_gpu=bool(gpu)).model_dump()


@api.get("/<run_id>", responses={200: Run, **problem(400, 404)})
def read_run(path: RunPath) -> dict[str, Any]:
    """All that is known of a run."""
    return run_view.detail(store(), path.run_id)


@api.post("/<run_id>/cancel", responses={200: Run, **problem(400, 404, 409)})
def cancel(path: RunPath) -> dict[str, Any]:
    """Ask a queued or running run to stop after its current step; it keeps a checkpoint."""
    runs.request_cancel(store(), path.run_id)
    return run_view.detail(store(), path.run_id)


@api.post("/<run_id>/stop", responses={200: Run, **problem(400, 404, 409)})
def stop(path: RunPath) -> dict[str, Any]:
    """Ask a training run to end after its current step and to publish the best that it has."""
    runs.request_stop(store(), path.run_id)
    return run_view.detail(store(), path.run_id)


@api.post("/<run_id>/resume", responses={200: Run, **problem(400, 404, 409, 503)})
def resume(path: RunPath) -> dict[str, Any]:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint."""
    with _changing:
        spec = runs.read_spec(store(), path.run_id)
        attempt = runs.resume(store(), path.run_id)
    queue.send(here().celery, spec, attempt)
    return run_view.detail(store(), path.run_id)


@api.post("/<run_id>/clone", responses={201: Run, **problem(400, 404, 413, 503)})
def clone(path: RunPath, body: CloneBody) -> tuple[dict[str, Any], int]:
    """Queue the same job again as a new run, with some values of its recipe changed."""
    spec = runs.read_spec(store(), path.run_id)
    job = spec.job.model_copy(update={"overrides": {**spec.job.overrides, **body.overrides}})
    return _submit(spec.kind, job, cloned_from=spec.id), 201


@api.delete("/<run_id>", responses={204: None, **problem(400, 404, 409)})
def delete_run(path: RunPath) -> tuple[str, int]:
    """Delete a run that has ended: its events, log and checkpoints. What it published stays."""
    with _changing:
        runs.check_ended(store(), path.run_id)
        intake.remove(store(), store().run(path.run_id), store().runs())
    return "", 204


@api.delete("/<run_id>/checkpoints", responses={204: None, **problem(400, 404, 409)})
def delete_checkpoints(path: RunPath) -> tuple[str, int]:
    """Delete the checkpoints of a run that has ended; resumed, it would begin again from its first step."""
    folder = store().run(path.run_id) / "checkpoints"
    with _changing:
        runs.check_ended(store(), path.run_id)
        intake.remove(store(), folder, store().runs())
        folder.mkdir()
    return "", 204


@api.get("/<run_id>/events", responses={200: Events, **problem(400, 404)})
def read_events(path: RunPath, query: EventsQuery) -> dict[str, Any]:
    """The events after a byte offset; `next` is where to go on."""
    ended = runs.read_status(store(), path.run_id).state in ENDED  # before the events: after it none is added
    try:
        found, after = runs.read_events(store(), path.run_id, query.after)
    except ValueError as error:
        raise Refusal(400, "bad_request", str(error)) from error
    if len(found) > query.limit:
        found = found[: query.limit]
        after = found[-1][0]
    at_end = after >= (store().run(path.run_id) / "events.jsonl").stat().st_size
    return {"items": [{"offset": offset, **event} for offset, event in found], "next": after, "ended": ended and at_end}


@api.get("/<run_id>/metrics", responses={200: Metrics, **problem(400, 404)})
def read_metrics(path: RunPath, query: MetricsQuery) -> dict[str, Any]:
    """The curve: a table of at most `points` rows."""
    return run_view.metrics(store(), path.run_id, query.points)


@api.get("/<run_id>/log", responses={200: Log, **problem(400, 404)})
def read_log(path: RunPath, query: LogQuery) -> dict[str, Any]:
    """What the run's process printed."""
    if not runs.exists(store(), path.run_id):
        raise NotFound(f"There is no run {path.run_id!r}.")
    text, after = run_view.log(store(), path.run_id, query.after, query.limit)
    return {"text": text, "next": after}


def _submit(kind: Kind, job: Job, cloned_from: str | None = None) -> dict[str, Any]:
    spec = queue.submit(here().settings, here().celery, kind, job, cloned_from, g.request_id)
    return run_view.detail(store(), spec.id)
