"""API keys: made, listed without their secret, revoked."""

from datetime import UTC, datetime
from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard.api.models import KeyPage, NewKey
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import store
from services.dashboard.errors import problem
from shared import auth
from shared.schemas import Strict

api = APIBlueprint("keys", __name__, url_prefix="/api/keys")


class KeyBody(Strict):
    name: str = Field(description="what the key is for")


class KeyPath(BaseModel):
    key_id: str


@api.get("", responses={200: KeyPage, **problem()})
def list_keys(query: Paging) -> dict[str, Any]:
    """All keys, the newest first; the keys themselves are not kept."""
    return page([{**key, "last_used": _moment(key["last_used"])} for key in auth.keys(store())], query)


@api.post("", responses={201: NewKey, **problem(400, 413)})
def create_key(body: KeyBody) -> tuple[dict[str, Any], int]:
    """Make a key. It is shown in this answer and never again."""
    key, record = auth.create_key(store(), body.name)
    return {**record, "last_used": None, "key": key}, 201


@api.delete("/<key_id>", responses={204: None, **problem(404)})
def revoke_key(path: KeyPath) -> tuple[str, int]:
    """Revoke a key: the next request with it is refused."""
    auth.revoke_key(store(), path.key_id)
    return "", 204


def _moment(seconds: float | None) -> str | None:
    return (
        datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if seconds else None
    )
