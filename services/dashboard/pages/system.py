"""The system: services, GPUs, disk, the Hugging Face cache, versions and settings."""

from flask import Blueprint, render_template

blueprint = Blueprint("system_pages", __name__, url_prefix="/system")


@blueprint.get("/well")
def well() -> str:
    """The line at the foot of the navigation: is everything up?"""
    return render_template("well.html")
