"""Exports: merged weights and GGUF files, to look at, download and delete."""

from typing import Any

from flask import Response, render_template, send_file
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import intake
from services.dashboard.api.models import Export, ExportPage, binary
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import here, store
from services.dashboard.errors import Refusal, problem
from shared import registry
from shared.schemas import NOT_SERVED, ExportCard

api = APIBlueprint("exports", __name__, url_prefix="/api/exports")


class ExportPath(BaseModel):
    file: str = Field(description="name of the file, with or without .gguf")


@api.get("", responses={200: ExportPage, **problem()})
def list_exports(query: Paging) -> dict[str, Any]:
    """The cards of all exports, the newest first."""
    return page(views(), query)


@api.get("/<file>", responses={200: Export, **problem(400, 404)})
def read_export(path: ExportPath) -> dict[str, Any]:
    """The card of an export."""
    return view(path.file)


@api.get(
    "/<file>/download",
    responses={200: binary("application/octet-stream", "the GGUF file"), **problem(400, 404, 409)},
)
def download(path: ExportPath) -> Response:
    """The file itself; a download that broke goes on by Range."""
    name = _gguf(path)
    return send_file(store().export(name), mimetype="application/octet-stream", as_attachment=True, download_name=name)


@api.get("/<file>/modelfile", responses={200: binary("text/plain", "a Modelfile for Ollama"), **problem(400, 404, 409)})
def modelfile(path: ExportPath) -> Response:
    """What `ollama create` needs beside the file."""
    name = _gguf(path)
    if registry.export_card(store(), name).encoding in NOT_SERVED:
        raise Refusal(
            409,
            "conflict",
            f"{name} is a LoRA for llama.cpp. A Modelfile needs a whole model: export another encoding.",
        )
    return Response(modelfile_text(name), mimetype="text/plain")


@api.delete("/<file>", responses={204: None, **problem(400, 404, 409)})
def delete_export(path: ExportPath) -> tuple[str, int]:
    """Delete an export that no alias points at."""
    name = registry.export_card(store(), path.file).file
    if pointing := [alias for alias, target in registry.aliases(store()).items() if target == name]:
        raise Refusal(409, "conflict", f"The alias {pointing[0]!r} points at {name}. Move it first.", pointing)
    intake.remove(store(), store().export(name), store().exports())
    store().export(f"{name}.json").unlink(missing_ok=True)
    return "", 204


def modelfile_text(file: str) -> str:
    """The Modelfile of a GGUF export."""
    return render_template("modelfile.txt", file=file, context=here().settings.context_tokens)


def view(name: str) -> dict[str, Any]:
    """An export as the API shows it. Raises NotFound."""
    return _view(registry.export_card(store(), name), registry.aliases(store()))


def views() -> list[dict[str, Any]]:
    """All exports as the API shows them, the newest first."""
    aliases = registry.aliases(store())
    return [_view(card, aliases) for card in registry.exports(store())]


def _view(card: ExportCard, aliases: dict[str, str]) -> dict[str, Any]:
    return {
        **card.model_dump(mode="json"),
        "aliases": [alias for alias, target in aliases.items() if target == card.file],
    }


def _gguf(path: ExportPath) -> str:
    name = registry.export_card(store(), path.file).file
    if store().export(name).is_dir():
        raise Refusal(
            409, "conflict", f"{name} is a folder of merged weights: take it from exports/{name} in the data directory."
        )
    return name
