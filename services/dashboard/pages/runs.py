"""Runs: the list, one run as it happens, and several laid over each other. `new_run` asks for one."""

import sys
from datetime import datetime
from typing import Any

from flask import Blueprint, render_template, request

from services.dashboard.api import recipes as recipe_views
from services.dashboard.context import store
from services.dashboard.listing import listing
from services.dashboard.pages import queue
from services.dashboard.views import run_view, speed_view, sweep_view, verdict
from services.dashboard.views.told import told
from shared import recipes
from shared.queue import KINDS
from shared.schemas import ENDED
from shared.store import NotFound

STATES = ("queued", "running", *ENDED)
OTHERS = 60  # runs that a curve can be compared with
LOG_HEAD = 64 << 10  # bytes of the log in which the first example stands
blueprint = Blueprint("run_pages", __name__, url_prefix="/runs")


@blueprint.get("")
def list_() -> str:
    """All runs, searched, filtered and sorted by the address; `pick` names those to compare."""
    everything, _ = run_view.select(store(), None, None, "", 0, sys.maxsize)
    state, kind = request.args.get("state"), request.args.get("kind")
    shown = [r for r in everything if (not state or r["state"] == state) and (not kind or r["kind"] == kind)]
    picked = [run_id for run_id in request.args.get("pick", "").split(",") if run_id]
    sorts = {
        "queued": lambda r: r["queued"],
        "state": lambda r: STATES.index(r["state"]),
        "name": lambda r: r["name"] or r["id"],
        "kind": lambda r: r["kind"],
        "of": lambda r: r["dataset"] or r["adapter"] or r["repository"] or (r["models"] or [""])[0],
        "loss": lambda r: r["loss"],
        "time": seconds,
    }
    return render_template(
        "runs/list.html",
        runs=listing(shown, sorts=sorts, default="-queued", text=_words),
        any=bool(everything),
        states=STATES,
        kinds=KINDS,
        picked=picked,
        active=any(r["state"] in ("queued", "running") for r in everything),
        seconds=seconds,
    )


@blueprint.get("/<run_id>")
def run(run_id: str) -> str:
    """One run: is it going well?"""
    view, story = run_view.detail(store(), run_id), told(store(), run_id)
    position, before = queue.before(run_id) if view["state"] == "queued" else (None, [])
    return render_template(
        "runs/run.html",
        run=view,
        story=story,
        ended=view["state"] in ENDED,
        verdict=verdict.verdict(view, story),
        troubles=verdict.troubles(view, story) if view["kind"] == "train" else [],
        left=verdict.left(view, story),
        took=seconds(view),
        position=position,
        before=before,
        others=_others(run_id) if view["kind"] == "train" and "HX-Request" not in request.headers else [],
        first_example=_first_example(run_id),
        changed=_changed(view),
        plan=speed_view.planned(view) if view["kind"] == "benchmark" else [],
        charts=speed_view.by_concurrency(view) if view["kind"] == "benchmark" else [],
        written=sweep_view.value,
    )


@blueprint.get("/compare")
def compare() -> str:
    """Runs side by side: their curves, the values in which they differ, and what came of them."""
    wanted = list(dict.fromkeys(request.args.getlist("run")))
    found = []
    for run_id in wanted:
        try:
            view = run_view.detail(store(), run_id)
        except (NotFound, ValueError):
            continue
        found.append({**view, "story": told(store(), run_id)})
    same_names = len({view["name"] for view in found}) < len(found)
    asked = [{**_flat(view["spec"]["job"]), **_flat(view["spec"].get("recipe") or {})} for view in found]
    names = list(dict.fromkeys(name for values in asked for name in values if name != "about"))
    differing = [(n, [values.get(n) for values in asked]) for n in names if len({str(v.get(n)) for v in asked}) > 1]
    return render_template(
        "runs/compare.html",
        runs=found,
        chart=[
            {"id": v["id"], "name": f"{v['name']} ({v['id'][-4:]})" if same_names else v["name"], "resumed": []}
            for v in found
        ],
        missing=[run_id for run_id in wanted if run_id not in {view["id"] for view in found}],
        differing=differing,
        others=[other for other in _others("") if other["id"] not in wanted],
        seconds=seconds,
        active=any(view["state"] not in ENDED for view in found),
    )


def seconds(view: dict[str, Any]) -> float | None:
    """How long a run has run, up to now while it runs."""
    if not view["started"] or view["state"] == "queued":
        return None
    began = datetime.fromisoformat(view["started"])
    end = datetime.fromisoformat(view["ended"]) if view["ended"] else datetime.now(began.tzinfo)
    return max(0.0, (end - began).total_seconds())


def _words(item: dict[str, Any]) -> str:
    fields = ("id", "name", "dataset", "adapter", "repository", "recipe_name", "result", "encoding", "reason")
    return " ".join([*(item[field] for field in fields if item[field]), *(item["models"] or [])])


def _others(run_id: str) -> list[dict[str, Any]]:
    """The newest other training runs that have a curve."""
    found, _ = run_view.select(store(), None, "train", "", 0, OTHERS + 1)
    return [item for item in found if item["id"] != run_id and item["loss"] is not None][:OTHERS]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "overrides"}


def _changed(view: dict[str, Any]) -> dict[str, Any]:
    """The overrides of a run that differ from its recipe's own values: name -> (the recipe's, the run's)."""
    job = view["spec"]["job"]
    if job.get("recipe") not in recipes.names():
        return {}
    own = recipe_views.view(job["recipe"])["values"]
    return {name: (own.get(name), value) for name, value in job["overrides"].items() if own.get(name) != value}


def _first_example(run_id: str) -> str:
    """The first example as the trainer printed it, token by token, what is learned between brackets; empty if it did not."""
    text, _ = run_view.log(store(), run_id, 0, LOG_HEAD)
    _, found, rest = text.partition("what is between [ ] is supervised:\n")
    return rest.partition("\nFirst example:")[0] if found else ""
