"""The chat page: the frame and what can be asked; the talk itself is the browser's and the API's."""

from typing import Any

from flask import Blueprint, render_template

from services.dashboard import chats
from services.dashboard.context import here, store
from shared import datasets, registry
from shared.store import NotFound, Store

MODELS, QUESTIONS = 3, 3
MODULES = (
    "channels composer conversation edit facts keep keeper markdown maths memory message options page scroll session sidebar stream"
).split()
blueprint = Blueprint("chat_pages", __name__, url_prefix="/chat")


@blueprint.get("")
def new() -> str:
    """A new chat; `?model=` chooses who answers, `?beside=` a second one."""
    return _page("")


@blueprint.get("/<chat_id>")
def read(chat_id: str) -> str:
    """A conversation."""
    return _page(chats.read(store(), chat_id)["id"])


def _page(chat_id: str) -> str:
    return render_template(
        "chat.html",
        chat_id=chat_id,
        modules=MODULES,
        suggestions=_suggestions(store()),
        base_model=here().settings.base_model,
    )


def _suggestions(store: Store) -> list[dict[str, Any]]:
    """What the newest adapters were trained on, with some questions of it."""
    found: dict[str, dict[str, Any]] = {}
    for card in registry.adapters(store):
        if card.dataset in found or len(found) == MODELS:
            continue
        try:
            folder = store.dataset(registry.dataset_reference(store, card.dataset))
        except NotFound:
            continue
        rows, _ = datasets.rows(folder, 0, 4 * QUESTIONS)
        users = (next((m for m in row.get("messages", ()) if m["role"] == "user"), None) for row in rows)
        asked = [user["content"].strip() for user in users if user]
        short = [question for question in dict.fromkeys(asked) if len(question) <= 120]
        found[card.dataset] = {"model": card.reference, "dataset": card.dataset, "questions": short[:QUESTIONS]}
    return list(found.values())
