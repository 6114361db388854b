"""The start page: is everything well, what runs, what was learned last, what to do next."""

import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from flask import Blueprint, render_template

from services.dashboard.api import adapters
from services.dashboard.context import here, store
from services.dashboard.filters import called
from services.dashboard.views import run_view
from services.dashboard.views.told import told
from services.dashboard.views.verdict import seconds_left
from shared import registry, runs

RECENT = 8
blueprint = Blueprint("home_pages", __name__)


class Step(NamedTuple):
    """Something worth doing next."""

    text: str
    label: str
    href: str


@blueprint.get("/")
def home() -> str:
    """What a person who trains every day wants to see at one glance; for a newcomer, three steps from a file to a chat."""
    active = runs.in_state(store(), "queued", "running")
    running = [_running(run_id) for run_id, status in active if status.state == "running"]
    recent, total = run_view.select(store(), None, None, "", 0, RECENT)
    known = adapters.views()
    datasets = registry.datasets(store())
    disk = shutil.disk_usage(store().root)
    return render_template(
        "home.html",
        look=here().watch.latest(),
        disk={"free": disk.free, "total": disk.total, "used": 1 - disk.free / disk.total},
        running=running,
        queued=len(active) - len(running),
        recent=recent,
        total=total,
        datasets=datasets,
        learned=known[0] if known else None,
        curve=run_view.losses(store(), known[0]["run"]) if known else [],
        steps=list(_next(datasets, known, recent))[:4],
    )


def _running(run_id: str) -> dict[str, Any]:
    """A running run with its small curve and the seconds that are left, by its pace of late."""
    run = run_view.item(store(), run_id)
    return {**run, "losses": run_view.losses(store(), run_id), "left": seconds_left(run, told(store(), run_id))}


def _next(datasets: list[dict[str, Any]], known: list[dict[str, Any]], recent: list[dict[str, Any]]) -> Iterator[Step]:
    """What is worth doing next, the most pressing first."""
    aliases = registry.aliases(store())
    if recent and recent[0]["state"] == "failed":
        run = recent[0]
        yield Step(f"{called(run)} failed: {run['reason']}", "See why", f"/runs/{run['id']}")
    if known:
        newest = known[0]
        ref = newest["reference"]
        if not newest["exports"]:
            yield Step(f"{ref} has no GGUF file yet.", "Export it", f"/adapters/{ref}#export")
        served = aliases.get("production")
        if served and served != ref and served.partition("@")[0] == newest["name"]:
            yield Step(
                f"production still answers with {served}; {ref} is newer.", "Compare them", f"/adapters/{ref}/compare"
            )
        if not served:
            yield Step(f"No name is served yet: point production at {ref}.", "Point it", f"/adapters/{ref}#alias")
    used = {card["dataset"] for card in known}
    fresh = [d for d in datasets if d["reference"] not in used]
    if fresh and known:
        yield Step(
            f"Nothing has been trained on {fresh[0]['name']} yet.",
            "Train on it",
            f"/runs/new?dataset={fresh[0]['reference']}",
        )
    rejected = [d for d in datasets[:3] if d["rows"]["rejected"]]
    if rejected:
        found = rejected[0]
        yield Step(
            f"{found['rows']['rejected']:,} rows of {found['name']} were rejected.",
            "Read the reasons",
            f"/datasets/{found['reference']}/rejected",
        )
