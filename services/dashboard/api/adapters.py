"""Adapters: what was learned, what points at it and what was made of it."""

from typing import Any

from flask import Response, send_file
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import health
from services.dashboard.api.datasets import users_of
from services.dashboard.api.models import Adapter, AdapterFiles, AdapterPage, binary
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import store
from services.dashboard.errors import Refusal, problem
from shared import registry
from shared.schemas import AdapterCard
from shared.store import NotFound

api = APIBlueprint("adapters", __name__, url_prefix="/api/adapters")


class AdapterPath(BaseModel):
    ref: str = Field(description="name@version, an alias, or a name for its newest version")


class FilePath(AdapterPath):
    file: str = Field(description="a name that the list of files has")


@api.get("", responses={200: AdapterPage, **problem()})
def list_adapters(query: Paging) -> dict[str, Any]:
    """The cards of all adapters, the newest first."""
    return page(views(), query)


@api.get("/<ref>", responses={200: Adapter, **problem(400, 404)})
def read_adapter(path: AdapterPath) -> dict[str, Any]:
    """The card of an adapter."""
    return view(path.ref)


@api.get("/<ref>/files", responses={200: AdapterFiles, **problem(400, 404)})
def list_files(path: AdapterPath) -> dict[str, Any]:
    """The files of an adapter: PEFT's, and the card."""
    return {"items": files(_reference(path))}


@api.get(
    "/<ref>/files/<file>",
    responses={200: binary("application/octet-stream", "the file"), **problem(400, 404)},
)
def read_file(path: FilePath) -> Response:
    """One file of an adapter; a download that broke goes on by Range."""
    reference = _reference(path)
    found = registry.adapter_files(store(), reference)
    if path.file not in found:
        raise NotFound(f"{reference} has no file {path.file!r}. There are: {', '.join(found)}.")
    return send_file(found[path.file], mimetype="application/octet-stream", as_attachment=True, download_name=path.file)


@api.delete("/<ref>", responses={204: None, **problem(400, 404, 409)})
def delete_adapter(path: AdapterPath) -> tuple[str, int]:
    """Delete an adapter, named in full, that no alias points at and no active run uses. Its version is not given again."""
    reference = registry.adapter_card(store(), path.ref).reference
    if pointing := [alias for alias, target in registry.aliases(store()).items() if target == reference]:
        raise Refusal(409, "conflict", f"The alias {pointing[0]!r} points at {reference}. Move it first.", pointing)
    if users := users_of("adapter", reference):
        raise Refusal(409, "conflict", f"{reference} is used by {', '.join(users)}. Wait for it, or cancel it.", users)
    registry.remove_adapter(store(), reference)
    health.forget_disk(store())
    return "", 204


def view(ref: str) -> dict[str, Any]:
    """An adapter as the API shows it; `ref` may be an alias or a bare name. Raises NotFound."""
    card = registry.adapter_card(store(), registry.adapter_reference(store(), ref))
    return _view(card, registry.aliases(store()), registry.exports(store()))


def files(reference: str) -> list[dict[str, Any]]:
    """Name and bytes of an adapter's files."""
    found = registry.adapter_files(store(), reference)
    return [{"name": name, "bytes": path.stat().st_size} for name, path in found.items()]


def _reference(path: AdapterPath) -> str:
    return registry.adapter_reference(store(), path.ref)


def views() -> list[dict[str, Any]]:
    """All adapters as the API shows them, the newest first."""
    aliases, exports = registry.aliases(store()), registry.exports(store())
    return [_view(card, aliases, exports) for card in registry.adapters(store())]


def _view(card: AdapterCard, aliases: dict[str, str], exports: list[Any]) -> dict[str, Any]:
    return {
        **card.model_dump(mode="json"),
        "reference": card.reference,
        "aliases": [alias for alias, target in aliases.items() if target == card.reference],
        "exports": [export.file for export in exports if export.adapter == card.reference],
    }
