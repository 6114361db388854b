"""A conversation is kept as a row: the newest version of a data set and this one more make a new version."""

import threading
from typing import Any

from pydantic import BaseModel, Field

from services.dashboard import intake
from services.dashboard.api.dataset_models import DatasetCard
from services.dashboard.api.rows import api  # the routes of data sets, those that read rows included
from services.dashboard.context import store
from services.dashboard.errors import problem
from shared import datasets, registry
from shared.schemas import Effort, Strict
from shared.store import NotFound, check_name

_turn = threading.Lock()  # two rows kept at once follow each other, and none is lost


class NamePath(BaseModel):
    ref: str = Field(description="the name of a data set, without a version; it is made if there is none")


class RowBody(Strict):
    messages: list[dict[str, Any]] = Field(description="role, content, and thinking of an answer", max_length=2000)
    reasoning_effort: Effort | None = None


@api.post("/<ref>/rows", responses={201: DatasetCard, 200: DatasetCard, **problem(400, 413, 507)})
def keep_row(path: NamePath, body: RowBody) -> tuple[dict[str, Any], int]:
    """Add a conversation to a data set, as a new version of it; 200 when the newest one has the very same row already."""
    name = check_name(path.ref, "data set")
    row = datasets.canonical(body.messages, body.reasoning_effort)
    count, note = intake.token_counter()
    with _turn:
        parent = _newest(name)
        if parent and datasets.holds(store().dataset(parent), row):
            return registry.dataset_card(store(), parent), 200
        return intake.add(
            lambda folder: datasets.append(
                store().dataset(parent) if parent else None,
                row,
                folder,
                name=name,
                source="conversations kept from the chat",
                count_tokens=count,
                notes=note,
            )
        )


def _newest(name: str) -> str | None:
    try:
        return registry.dataset_reference(store(), name)
    except NotFound:
        return None
