"""Runs: the list, a new one, and one run as it happens."""

from datetime import datetime
from typing import Any

from flask import Blueprint, render_template

from services.dashboard import run_view
from services.dashboard.context import store
from shared.schemas import ENDED

blueprint = Blueprint("run_pages", __name__, url_prefix="/runs")


@blueprint.get("/<run_id>")
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
