"""Sweeps: the list, one with its trials compared, and the form that asks for one. They stand among the runs."""

from flask import render_template, request

from services.dashboard.api import sweeps as sweep_views
from services.dashboard.context import here, store
from services.dashboard.listing import listing
from services.dashboard.pages.new_run import label, recipe_for, recipes_for
from services.dashboard.pages.runs import STATES, blueprint
from services.dashboard.views import sweep_view
from shared import recipes, registry, search
from shared.schemas import ENDED
from shared.sweep_schemas import SweepJob

SORTS = {
    "asked": lambda s: s["created"],
    "state": lambda s: STATES.index(s["state"]),
    "name": lambda s: s["name"],
    "of": lambda s: s["dataset"],
    "best": lambda s: s["best"] and s["best"]["validation_loss"],
}
TRIALS = {
    "trial": lambda t: t["number"],
    "loss": lambda t: t["validation_loss"],
    "state": lambda t: STATES.index(t["state"]),
}


@blueprint.get("/sweeps")
def sweep_list() -> str:
    """All sweeps."""
    everything = sweep_views.views()
    return render_template(
        "sweeps/list.html",
        sweeps=listing(
            everything, sorts=SORTS, default="-asked", text=lambda s: f"{s['id']} {s['name']} {s['dataset']}"
        ),
        any=bool(everything),
        active=any(sweep["state"] not in ENDED for sweep in everything),
        label=label,
    )


@blueprint.get("/sweeps/<sweep_id>")
def sweep(sweep_id: str) -> str:
    """One sweep: how it goes, its trials compared, the best of them."""
    view = sweep_views.view(sweep_id)
    by_value = {f"v-{name}": lambda t, name=name: t["values"][name] for name in view["searched"]}
    return render_template(
        "sweeps/sweep.html",
        sweep=view,
        verdict=sweep_view.verdict(view),
        ended=view["state"] in ENDED,
        trials=listing(view["trials"], sorts={**TRIALS, **by_value}, default="trial", size=len(view["trials"]) or 1),
        scatters=sweep_view.scatters(view),
        value=sweep_view.value,
        choice=sweep_view.choice,
        label=label,
        no_trainer="trainer" in here().watch.latest().troubles,
    )


@blueprint.get("/sweeps/new")
def new_sweep() -> str:
    """The form; `dataset` and `recipe` of the address fill it."""
    cards = registry.datasets(store())
    wanted = request.args.get("dataset", "")
    chosen = next((c for c in cards if wanted in (c["reference"], c["name"])), cards[0] if cards else None)
    kind = chosen["kind"] if chosen else "conversations"
    recipe = recipe_for(kind, request.args.get("recipe"))
    resolved = recipes.resolve(recipe)
    usual = search.usual(resolved)
    return render_template(
        "sweeps/new.html",
        datasets=cards,
        dataset=chosen,
        recipes=recipes_for(kind),
        recipe=recipe,
        own=resolved.model_dump(),
        usual={name: search.written(found) for name, found in usual.items()},
        first=search.FIRST,
        others=[name for name in search.SEARCHABLE if name not in (*usual, "epochs")],  # unused where steps is set
        trials=SweepJob.model_fields["trials"].default,
        value=sweep_view.value,
        label=label,
    )
