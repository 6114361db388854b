"""The state of the whole: services, queue, disk, GPUs, versions; and the description of this API."""

import os
import platform
import shutil
from typing import Any

from flask import current_app
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import health
from services.dashboard.api.machine import History
from services.dashboard.api.models import System
from services.dashboard.context import here
from services.dashboard.errors import problem
from services.dashboard.views import history
from services.dashboard.watch import memory
from shared import runs
from shared.hub import snapshot
from shared.settings import Settings
from shared.store import NotFound
from shared.versions import versions

VERSION = "0.1.0"
PACKAGES = ("flask", "celery", "redis", "pydantic", "tokenizers")
api = APIBlueprint("system", __name__, url_prefix="/api")


class HistoryQuery(BaseModel):
    seconds: int = Field(3600, ge=60, le=86400, description="how far back")


@api.get("/system", responses={200: System, **problem()})
def system() -> dict[str, Any]:
    """What runs, what waits, and what is left of the disk."""
    return view()


@api.get("/system/history", responses={200: History, **problem()})
def system_history(query: HistoryQuery) -> dict[str, Any]:
    """GPUs, memory, load and free disk over the last while, as at most 600 points, each the mean of its span."""
    look, disk = here().watch.latest(), shutil.disk_usage(here().store.root)
    known = {"memory_total": memory()[1], "disk_total": disk.total, "cores": os.cpu_count() or 1}
    return {**history.columns(here().watch.history(query.seconds), query.seconds, look.gpus), **known}


@api.get(
    "/openapi.json",
    responses={200: {"description": "this description", "content": {"application/json": {}}}, **problem()},
)
def description() -> dict[str, Any]:
    """The description of this API, as OpenAPI."""
    return current_app.api_doc  # type: ignore[attr-defined]  # the application is flask_openapi3's


def view() -> dict[str, Any]:
    """The answer of /api/system."""
    settings, store = here().settings, here().store
    look = here().watch.latest()
    active = [status.state for _, status in runs.in_state(store, "queued", "running")]
    disk = shutil.disk_usage(store.root)
    return {
        "services": look.services,
        "queue": {"waiting": look.waiting, "queued": active.count("queued"), "running": active.count("running")},
        "disk": {"total": disk.total, "free": disk.free, "by_kind": health.disk_by_kind(settings, store)},
        "gpus": look.gpus,
        "versions": {"tandem": VERSION, "python": platform.python_version(), **versions(*PACKAGES)},
        "base_model": settings.base_model,
        "base_model_cached": base_cached(settings),
    }


def base_cached(settings: Settings) -> bool:
    """Whether the base model is in the Hugging Face cache."""
    try:
        snapshot(settings.base_model, "main", settings.hf_home)
    except NotFound:
        return False
    return True
