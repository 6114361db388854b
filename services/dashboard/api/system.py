"""The state of the whole: services, queue, disk, GPUs, versions; and the description of this API."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import current_app
from flask_openapi3 import APIBlueprint

from services.dashboard import health
from services.dashboard.api.models import System
from services.dashboard.context import here
from services.dashboard.errors import problem
from shared import runs
from shared.hub import snapshot
from shared.settings import Settings
from shared.store import NotFound

VERSION = "0.1.0"
PACKAGES = ("flask", "celery", "redis", "pydantic", "tokenizers")
api = APIBlueprint("system", __name__, url_prefix="/api")


@api.get("/system", responses={200: System, **problem()})
def system() -> dict[str, Any]:
    """What runs, what waits, and what is left of the disk."""
    return view()


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
        "versions": {"tandem": VERSION, "python": platform.python_version(), **_packages()},
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


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
