"""The pages: rendered here, refreshed by fetching themselves while something runs."""

from collections import Counter
from datetime import datetime
from typing import Any

from flask import Blueprint, render_template

from services.dashboard import adapters, aliases, exports, health, run_view
from services.dashboard.context import here, store
from shared import recipes, registry, runs
from shared.schemas import ENCODINGS, ENDED

RECENT = 12
blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def home() -> str:
    """What runs, and everything that there is to work with."""
    services, _, gpus = health.look(here().settings, store())
    recent, total = run_view.select(store(), None, None, "", 0, RECENT)
    active = [run_id for run_id, _ in runs.in_state(store(), "queued", "running")]
    shown = {run["id"] for run in recent}
    waiting = [run_view.item(store(), run_id) for run_id in active if run_id not in shown]
    return render_template(
        "home.html",
        services=services,
        gpus=gpus,
        runs=waiting + recent,
        total=total,
        states=Counter(run["state"] for run in waiting + recent),
        active=bool(active),
        datasets=registry.datasets(store()),
        adapters=adapters.views(),
        exports=exports.views(),
        aliases=aliases.views(),
        recipes=recipes.names(),
        encodings=ENCODINGS,
    )


@blueprint.get("/runs/<run_id>")
def run(run_id: str) -> str:
    """One run: is it going well?"""
    view = run_view.detail(store(), run_id)
    curve = run_view.metrics(store(), run_id, 400)
    loss = curve["columns"].index("loss")
    losses = [row[loss] for row in curve["rows"] if row[loss] is not None]
    text, log_end = run_view.log(store(), run_id, None, 16 << 10)
    return render_template(
        "run.html",
        run=view,
        ended=view["state"] in ENDED,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        took=_took(view),
        log=text,
        log_end=log_end,
        events_end=run_view.events_end(store(), run_id),
    )


def _took(view: dict[str, Any]) -> str:
    if not (view["started"] and view["ended"]):
        return "–"
    seconds = (datetime.fromisoformat(view["ended"]) - datetime.fromisoformat(view["started"])).total_seconds()
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


@blueprint.get("/chat")
def chat() -> str:
    """Talk to what is served."""
    return render_template("chat.html")


@blueprint.app_template_filter("bytes")
def bytes_filter(value: float) -> str:
    """`1536` -> `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


@blueprint.app_template_filter("ago")
def ago_filter(moment: str | None) -> str:
    """A moment in ISO 8601 as `3 min ago`; the page shows the moment itself on hover."""
    if not moment:
        return "–"
    then = datetime.fromisoformat(moment)
    seconds = max(0.0, (datetime.now(then.tzinfo) - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds:.0f} s ago"


@blueprint.app_template_filter("share")
def share_filter(run: dict[str, Any]) -> float:
    """How much of a run's steps is done, from 0 to 1."""
    return min(1.0, run["step"] / run["steps"]) if run["steps"] else 0.0
