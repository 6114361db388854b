"""The chat page."""

from flask import Blueprint, render_template

blueprint = Blueprint("chat_pages", __name__, url_prefix="/chat")


@blueprint.get("")
def chat() -> str:
    """Talk to what is served."""
    return render_template("chat.html")
