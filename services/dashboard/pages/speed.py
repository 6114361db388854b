"""Speed: what benchmarks have measured of each model, over time. It stands among the runs."""

from flask import render_template, request

from services.dashboard.context import here, store
from services.dashboard.pages.runs import blueprint
from services.dashboard.views import run_view, speed_view
from services.dashboard.views.speed_view import Setting
from shared import registry, runs, speed
from shared.schemas import NOT_SERVED

OFFERED = 12  # models in the form
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
SHOWN = 100  # lines of the table of all measurements


@blueprint.get("/speed")
def speeds() -> str:
    """Every model's newest figures at one setting, and how they changed; the setting stands in the address."""
    measured = speed_view.history(store())
    settings = sorted({speed_view.setting(row) for row in measured})
    chosen = _chosen(settings, speed_view.setting(measured[0]) if measured else None)
    rows = [row for row in measured if speed_view.setting(row) == chosen]
    newest = speed_view.latest(rows)
    active = [run_view.item(store(), run_id) for run_id, _ in runs.in_state(store(), "queued", "running")]
    return render_template(
        "runs/speed.html",
        chosen=chosen,
        sizes=sorted({(s.prompt_tokens, s.tokens) for s in settings}),
        concurrencies=[s.concurrency for s in settings if chosen and s[:2] == chosen[:2]],
        newest=newest,
        charts=speed_view.by_date(rows, [row["model"] for row, _ in newest]),
        rows=rows[:SHOWN],
        total=len(rows),
        going=[run for run in active if run["kind"] == "benchmark"],
        waits_for=next((run for run in active if run["state"] == "running" and run["kind"] != "benchmark"), None),
        models=_models(),
        ticked=speed.usual(here().settings, store()),
        usual=speed,
        concurrency=CONCURRENCY,
    )


def _chosen(settings: list[Setting], newest: Setting | None) -> Setting | None:
    """The setting of the address; where nothing was measured at it, the nearest of the same size, or the newest one's.

    `newest` is the last that its run measured; one request at a time is what a person feels."""
    size = request.args.get("size", "")
    same = [s for s in settings if f"{s.prompt_tokens}-{s.tokens}" == size]
    same = same or [s for s in settings if newest and s[:2] == newest[:2]]
    at = request.args.get("at", 1, type=int)
    return min(same, key=lambda s: abs(s.concurrency - at), default=None)


def _models() -> list[str]:
    """What can be measured: what is by default, then the newest adapters and exports."""
    adapters = [card.reference for card in registry.adapters(store())]
    exports = [card.file for card in registry.exports(store()) if card.encoding not in NOT_SERVED]
    return list(dict.fromkeys([*speed.usual(here().settings, store()), *adapters, *exports]))[:OFFERED]
