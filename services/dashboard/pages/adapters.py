"""Adapters: what was learned, where it comes from, how it compares, what points at it."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from services.dashboard.api import adapters, aliases, exports
from services.dashboard.context import here, store
from services.dashboard.listing import listing
from services.dashboard.views import adapter_view, encodings, run_view
from shared import registry
from shared.schemas import ENDED, NOT_SERVED
from shared.store import NotFound

SORTS = {
    "adapter": lambda a: (a["name"], a["created"]),
    "dataset": lambda a: a["dataset"],
    "loss": lambda a: a["loss_last"],
    "validation": lambda a: a["validation_loss"],
    "size": lambda a: a["bytes"],
    "made": lambda a: a["created"],
}
FRESH = 120  # seconds in which a change of an alias is told, with its undo, at the top of the alias's page
blueprint = Blueprint("adapter_pages", __name__, url_prefix="/adapters")


@blueprint.get("")
def adapter_list() -> str:
    """The newest version of each adapter, or all of them, and the aliases."""
    views = adapters.views()
    versions: dict[str, list[dict[str, Any]]] = {}
    for view in views:
        versions.setdefault(view["name"], []).append(view)
    every = request.args.get("versions") == "all" or bool(request.args.get("q", "").strip())
    shown = views if every else [found[0] for found in versions.values()]
    return render_template(
        "adapters/list.html",
        adapters=listing(shown, sorts=SORTS, default="-made", text=_text),
        versions=versions,
        any=bool(views),
        targets=_targets(),
        aliases=[_alias(view) for view in aliases.views(removed=True)],
        gguf_alias=here().settings.gguf_alias,
    )


@blueprint.get("/aliases")
def find_alias() -> Response:
    """Where the form for an alias of any name leads: to that alias's page."""
    name, target = request.args.get("alias", "").strip(), request.args.get("target", "")
    return redirect(url_for(".alias_page", alias=name, target=target or None) if name else "/adapters#aliases")


@blueprint.get("/aliases/<alias>")
def alias_page(alias: str) -> str:
    """One alias: what it points at, what it pointed at, and what would change if it pointed elsewhere."""
    store().alias(alias)  # raises BadName
    known = next((view for view in aliases.views(removed=True) if view["alias"] == alias), None)
    view = _alias(known or {"alias": alias, "target": None, "history": []})
    wanted = request.args.get("target", "")
    new = adapter_view.target(wanted)
    if wanted and not new:
        raise NotFound(f"There is no adapter and no export {wanted!r}; it may have been deleted.")
    return render_template(
        "adapters/alias.html",
        alias=view,
        old=adapter_view.target(view["target"]),
        new=new,
        warnings=adapter_view.warnings(alias, new) if new else [],
        targets=_targets(),
        settings=here().settings,
    )


@blueprint.get("/<ref>")
def adapter_page(ref: str) -> str | Response:
    """One adapter: its lineage, its card, and what can be done with it."""
    adapter = adapters.view(ref)
    if ref != adapter["reference"]:
        return redirect(url_for(".adapter_page", ref=adapter["reference"]))
    found = adapter_view.runs_of(adapter["reference"])
    return render_template(
        "adapters/adapter.html",
        adapter=adapter,
        lineage=adapter_view.lineage(adapter),
        runs=adapter_view.worth_showing(found),
        active=any(run["state"] not in ENDED for run in found),
        evaluations=adapter_view.evaluations(found),
        losses=run_view.losses(store(), adapter["run"]),
        changed=adapter_view.changed_values(adapter),
        files=adapters.files(adapter["reference"]),
        datasets=[card["reference"] for card in registry.datasets(store())],
        encodings=encodings.choices(here().settings, adapter["bytes"]),
        aliases=aliases.views(),
        settings=here().settings,
    )


@blueprint.get("/<ref>/compare")
def compare_page(ref: str) -> str | Response:
    """Questions of one's own, answered side by side by the base, the adapter, its versions and its exports."""
    adapter = adapters.view(ref)
    if ref != adapter["reference"]:
        return redirect(f"/adapters/{adapter['reference']}/compare")
    settings = here().settings
    served = registry.served_export(store(), settings.gguf_alias)
    return render_template(
        "adapters/compare.html",
        adapter=adapter,
        versions=[v for v in adapters.views() if v["name"] == adapter["name"] and v != adapter],
        exports=[
            e for e in exports.views() if e["adapter"] == adapter["reference"] and e["encoding"] not in NOT_SERVED
        ],
        served=served.file if served else None,
        questions=adapter_view.questions(adapter),
        evaluations=adapter_view.evaluations(adapter_view.runs_of(adapter["reference"])),
        settings=settings,
    )


def _alias(view: dict[str, Any]) -> dict[str, Any]:
    """An alias with when it last changed, whether just now, and what `undo` would bring back if that is still there."""
    last = view["history"][-1] if view["history"] else {"time": None, "before": None}
    there = last["before"] is None or adapter_view.target(last["before"]) is not None
    fresh = bool(last["time"]) and (datetime.now(UTC) - datetime.fromisoformat(last["time"])).total_seconds() < FRESH
    return {**view, "since": last["time"], "before": last["before"], "before_there": there, "fresh": fresh}


def _targets() -> dict[str, list[str]]:
    """What an alias can point at, by kind."""
    return {
        "Adapters": [card.reference for card in registry.adapters(store())],
        "Exports": [card.file for card in registry.exports(store())],
    }


def _text(adapter: dict[str, Any]) -> str:
    return " ".join([adapter["reference"], adapter["dataset"], adapter["recipe"], *adapter["aliases"]])
