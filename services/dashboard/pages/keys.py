"""API keys for programs, and sign-in links for people."""

from flask import Blueprint, render_template

from services.dashboard.api import keys as api_keys
from services.dashboard.context import here, store
from services.dashboard.listing import listing
from shared import registry

SORTS = {"name": lambda k: k["name"].lower(), "made": lambda k: k["created"], "used": lambda k: k["last_used"]}
blueprint = Blueprint("key_pages", __name__, url_prefix="/keys")


@blueprint.get("")
def keys() -> str:
    """The keys, one more, one less; and a link for another browser."""
    aliases = registry.aliases(store())
    model = "production" if "production" in aliases else here().settings.base_model
    views = api_keys.views()
    return render_template(
        "keys.html",
        keys=listing(views, sorts=SORTS, default="-made", text=lambda k: f"{k['name']} {k['id']}"),
        any=bool(views),
        url=here().settings.public_url,
        model=model,
    )
