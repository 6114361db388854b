"""The disk: what fills it, by kind, and what of it can be deleted."""

import shutil
import time
from typing import Any

from flask_openapi3 import APIBlueprint

from services.dashboard import health, intake
from services.dashboard.api.machine import Storage
from services.dashboard.context import here, store
from services.dashboard.errors import problem
from services.dashboard.views import storage

api = APIBlueprint("storage", __name__, url_prefix="/api/storage")


@api.get("", responses={200: Storage, **problem()})
def read_storage() -> dict[str, Any]:
    """Bytes by kind, and what can be deleted, each with why it is safe, what is lost and the request that deletes it."""
    return view()


@api.delete("/abandoned", responses={204: None, **problem()})
def delete_abandoned() -> tuple[str, int]:
    """Delete what interrupted uploads and runs left behind more than a day ago."""
    intake.clear_abandoned(store(), time.time())
    health.forget_disk(store())
    return "", 204


def view() -> dict[str, Any]:
    """The answer of /api/storage."""
    disk = shutil.disk_usage(store().root)
    return {
        "total": disk.total,
        "free": disk.free,
        "by_kind": health.disk_by_kind(here().settings, store()),
        "deletable": storage.deletable(here().settings, store()),
    }
