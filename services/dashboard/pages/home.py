"""The pages: rendered here, refreshed by fetching themselves while something runs."""

from collections import Counter

from flask import Blueprint, render_template

from services.dashboard import run_view
from services.dashboard.api import adapters, aliases, exports
from services.dashboard.context import here, store
from shared import recipes, registry, runs
from shared.schemas import ENCODINGS

RECENT = 12
blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def home() -> str:
    """What runs, and everything that there is to work with."""
    look = here().watch.latest()
    recent, total = run_view.select(store(), None, None, "", 0, RECENT)
    active = [run_id for run_id, _ in runs.in_state(store(), "queued", "running")]
    shown = {run["id"] for run in recent}
    waiting = [run_view.item(store(), run_id) for run_id in active if run_id not in shown]
    return render_template(
        "home.html",
        services=look.services,
        gpus=look.gpus,
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
