"""The system: services, GPUs, disk, the Hugging Face cache, versions and settings."""

import platform

from flask import Blueprint, render_template, request

from services.dashboard.api import cache as api_cache
from services.dashboard.api import storage as api_storage
from services.dashboard.api import system as api_system
from services.dashboard.context import here, store
from services.dashboard.views import report, storage
from shared import runs, settings
from shared.store import read_json
from shared.workers import trainers

SPANS = {3600: "1 hour", 6 * 3600: "6 hours", 86400: "1 day"}
# What each service does, and what does not work while it is down.
SERVICES = {
    "dashboard": ("These pages and the API", ""),
    "redis": ("Keeps the queue of jobs", "Jobs that you start are kept, and are sent when it is back."),
    "trainer": (
        "Trains, exports and fetches",
        "Jobs wait in the queue. A run in hand goes on from its last checkpoint.",
    ),
    "inference": ("Answers for the base model and adapters", "Chat and /v1 do not answer."),
    "llama": ("Answers for GGUF exports", "Exports do not answer; adapters and the base model do."),
}
blueprint = Blueprint("system_pages", __name__, url_prefix="/system")


@blueprint.get("")
def overview() -> str:
    """Is everything up, how busy is it, and what to do about what is not."""
    look = here().watch.latest()
    seconds = request.args.get("seconds", type=int)
    return render_template(
        "system/overview.html",
        look=look,
        services=SERVICES,
        base=here().settings.base_model,
        cached=api_system.base_cached(here().settings),
        fetching=_fetching(here().settings.base_model),
        spans=SPANS,
        seconds=seconds if seconds in SPANS else 3600,
    )


@blueprint.get("/disk")
def disk() -> str:
    """What fills the disk, and what of it can go."""
    view = api_storage.view()
    sizes = {name: view["by_kind"][name] for name in storage.KINDS}
    return render_template("system/disk.html", storage=view, sizes=sizes, kinds=storage.KINDS)


@blueprint.get("/cache")
def cache() -> str:
    """The Hugging Face cache, with what is broken in it."""
    items = api_cache.views()
    active = any(item["last_run"] and item["last_run"]["state"] in ("queued", "running") for item in items)
    return render_template("system/cache.html", items=items, active=active, base=here().settings.base_model)


@blueprint.get("/settings")
def about() -> str:
    """Versions and settings, also as text for a bug report."""
    system = api_system.view()
    packages = {"dashboard": system["versions"]}
    packages |= {f"trainer {w['host']}": w["versions"] for w in trainers(here().settings, store()) if w.get("versions")}
    values = settings.described(here().settings)
    text = report.text(system, packages, values, platform.platform())
    return render_template("system/settings.html", packages=packages, settings=values, report=text)


@blueprint.get("/well")
def well() -> str:
    """The line at the foot of the navigation: is everything up?"""
    return render_template("well.html")


def _fetching(repository: str) -> str | None:
    """The run that fetches this repository now."""
    for run_id, _ in runs.in_state(store(), "queued", "running"):
        job = read_json(store().run(run_id) / "spec.json")["job"]
        if (job.get("repository"), job.get("action", "fetch")) == (repository, "fetch"):
            return run_id
    return None
