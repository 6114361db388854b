"""API keys: made, listed without their secret, revoked."""

from datetime import UTC, datetime
from typing import Any

from flask import g
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard.api.models import KeyPage, NewKey, SignInLink
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import here, store
from services.dashboard.errors import Refusal, problem
from shared import auth
from shared.schemas import Strict

api = APIBlueprint("keys", __name__, url_prefix="/api/keys")
links = APIBlueprint("sign_in_links", __name__, url_prefix="/api/sign-in-links")


class KeyBody(Strict):
    name: str = Field(description="what the key is for")


class KeyPath(BaseModel):
    key_id: str


@api.get("", responses={200: KeyPage, **problem()})
def list_keys(query: Paging) -> dict[str, Any]:
    """All keys, the newest first; the keys themselves are not kept."""
    return page(views(), query)


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


@links.post("", responses={201: SignInLink, **problem()})
def create_link() -> tuple[dict[str, Any], int]:
    """Make a link that signs one browser in, once, within a day. Only for people who are signed in, not for keys."""
    if g.who != "session":  # a key must not become a session, which outlives it
        raise Refusal(
            403, "unauthorized", "A key cannot make sign-in links. Sign in with a browser and use the page Keys."
        )
    token = auth.new_sign_in(store())
    return {"url": f"{here().settings.public_url}/sign-in?token={token}", "hours": auth.SIGN_IN_HOURS}, 201


def views() -> list[dict[str, Any]]:
    """All keys as the API shows them, the newest first."""
    return [{**key, "last_used": _moment(key["last_used"])} for key in auth.keys(store())]


def _moment(seconds: float | None) -> str | None:
    return (
        datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if seconds else None
    )
