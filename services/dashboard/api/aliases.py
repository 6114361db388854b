"""Aliases: movable names, each with the history of what it pointed at."""

from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard.api.models import AliasPage, Pointed
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import store
from services.dashboard.errors import problem
from shared import registry
from shared.schemas import Strict

api = APIBlueprint("aliases", __name__, url_prefix="/api/aliases")


class AliasPath(BaseModel):
    alias: str


class ListQuery(Paging):
    removed: bool = Field(False, description="also those that were removed, which `undo` brings back")


class AliasBody(Strict):
    target: str = Field(description="an adapter as name@version, or an export's file")


@api.get("", responses={200: AliasPage, **problem()})
def list_aliases(query: ListQuery) -> dict[str, Any]:
    """Every alias, what it points at and pointed at before."""
    return page(views(removed=query.removed), query)


@api.put("/<alias>", responses={200: Pointed, **problem(400, 404, 413)})
def point(path: AliasPath, body: AliasBody) -> dict[str, Any]:
    """Point an alias at an adapter or an export; the next request to the servers follows it."""
    before = registry.point_alias(store(), path.alias, body.target)
    return {"alias": path.alias, "target": _target(path.alias), "before": before}


@api.post("/<alias>/undo", responses={200: Pointed, **problem(400, 404)})
def undo(path: AliasPath) -> dict[str, Any]:
    """Point it at what it pointed at before; `target` is null if that was nothing."""
    before = _target(path.alias)
    registry.undo_alias(store(), path.alias)
    return {"alias": path.alias, "target": _target(path.alias), "before": before}


@api.delete("/<alias>", responses={204: None, **problem(400, 404)})
def remove(path: AliasPath) -> tuple[str, int]:
    """Remove an alias; what it points at stays, and `undo` brings it back."""
    registry.remove_alias(store(), path.alias)
    return "", 204


def views(removed: bool = False) -> list[dict[str, Any]]:
    """All aliases as the API shows them; with `removed`, those that point at nothing any more come last."""
    known: dict[str, str | None] = {**registry.aliases(store())}
    if removed:
        known |= dict.fromkeys(registry.removed_aliases(store()))
    return [{"alias": a, "target": t, "history": registry.alias_history(store(), a)} for a, t in known.items()]


def _target(alias: str) -> str | None:
    return registry.aliases(store()).get(alias)
