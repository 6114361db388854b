"""The Hugging Face cache: what is in it and what is broken. The trainer alone writes there, by runs of the kind fetch."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flask_openapi3 import APIBlueprint

from services.dashboard.api.machine import CachePage
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import here, store
from services.dashboard.errors import problem
from services.dashboard.views import run_view
from shared import cache, runs
from shared.cache import Repository

api = APIBlueprint("cache", __name__, url_prefix="/api/cache")


@api.get("", responses={200: CachePage, **problem()})
def read_cache(query: Paging) -> dict[str, Any]:
    """The repositories of the cache, quickly checked. `POST /api/runs` with the kind `fetch` and an action does the rest."""
    return page(views(), query)


def views() -> list[dict[str, Any]]:
    """All repositories as the API shows them, by name."""
    fetches, _ = run_view.select(store(), None, "fetch", "", 0, 1000)
    needed = cache.needed(here().settings, store())
    return [_view(found, fetches, needed) for found in cache.repositories(here().settings.hf_home)]


def _view(found: Repository, fetches: list[dict[str, Any]], needed: dict[str, str]) -> dict[str, Any]:
    used = datetime.fromtimestamp(found.last_used, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    last = next((run for run in fetches if run["repository"] == found.repository), None)
    return {
        "repository": found.repository,
        "type": found.type,
        "bytes": found.bytes,
        "last_used": used,
        "revisions": [asdict(revision) for revision in found.revisions],
        "problems": [asdict(broken) for broken in found.broken],
        "needed_by": needed.get(found.repository) if found.type == "model" else None,
        "last_run": _run(last) if last else None,
    }


def _run(run: dict[str, Any]) -> dict[str, Any]:
    checked = run["action"] == "check" and run["state"] == "succeeded"
    found = [event["text"] for event in runs.all_events(store(), run["id"], "warning")] if checked else []
    return {**{name: run[name] for name in ("id", "action", "state", "result", "ended")}, "found": found}
