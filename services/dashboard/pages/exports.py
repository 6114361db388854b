"""Exports: what was made of adapters, and how to use it."""

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from services.dashboard.api import exports
from services.dashboard.context import here, store
from services.dashboard.listing import listing
from services.dashboard.views import encodings
from shared import registry
from shared.schemas import ENCODINGS, NOT_SERVED

SORTS = {
    "file": lambda e: e["file"],
    "adapter": lambda e: e["adapter"],
    "size": lambda e: e["bytes"],
    "bits": lambda e: e["bits_per_weight"],
    "agreement": lambda e: e["parity"].get("top1"),
    "made": lambda e: e["created"],
}
blueprint = Blueprint("export_pages", __name__, url_prefix="/exports")


@blueprint.get("")
def export_list() -> str:
    """All exports."""
    views = exports.views()
    served = registry.served_export(store(), here().settings.gguf_alias)
    return render_template(
        "exports/list.html",
        exports=listing(views, sorts=SORTS, default="-made", text=lambda e: f"{e['file']} {' '.join(e['aliases'])}"),
        any=bool(views),
        served=served.file if served else None,
        adapters=[card.reference for card in registry.adapters(store())],
    )


@blueprint.get("/<file>")
def export_page(file: str) -> str | Response:
    """One export: what it is, how well it agrees with its adapter, and how to serve it."""
    export = exports.view(file)
    if file != export["file"]:
        return redirect(f"/exports/{export['file']}")
    settings = here().settings
    served = registry.served_export(store(), settings.gguf_alias)
    adapters = {card.reference: card for card in registry.adapters(store())}
    made = {card.encoding for card in registry.exports(store()) if card.adapter == export["adapter"]}
    return render_template(
        "exports/export.html",
        export=export,
        adapter=adapters.get(export["adapter"]),
        others=[view for view in exports.views() if view["adapter"] == export["adapter"] and view != export],
        missing=[name for name in ENCODINGS if name not in made],
        agreement=encodings.agreement(export["parity"]),
        speed=encodings.speed(export["parity"]),
        about=encodings.ABOUT[export["encoding"]],
        served=bool(served and served.file == export["file"]),
        modelfile=None if export["encoding"] in NOT_SERVED else exports.modelfile_text(export["file"]),
        settings=settings,
    )
