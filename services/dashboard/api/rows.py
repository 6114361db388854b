"""What is inside a data set: its rows, those that were rejected, the file it came from, and a row as tokens."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Response, send_file
from pydantic import BaseModel, Field

from services.dashboard.api.dataset_models import RejectedPage, RowPage, TokenView
from services.dashboard.api.datasets import DatasetPath, api
from services.dashboard.api.models import binary
from services.dashboard.api.paging import Paging, whole
from services.dashboard.context import store
from services.dashboard.errors import problem
from services.dashboard.intake import base_encoder
from shared import datasets, registry
from shared.harmony import IGNORED, Encoder, Example, row_examples
from shared.schemas import Effort, Policy
from shared.store import NotFound

BYTES = "application/octet-stream"


class RowsQuery(Paging):
    q: str = Field("", max_length=500, description="a part of the text of a row")


class RejectedQuery(Paging):
    q: str = Field("", max_length=500, description="a part of the reason or of the row's text")
    kind: str = Field("", max_length=200, description="a kind of reason, as `kinds` of the answer names it")
    download: bool = Field(False, description="the whole file instead of a page")


class TokensQuery(BaseModel):
    row: int = Field(0, ge=0)
    policy: Policy = "analysis+final"
    effort: Effort | None = None
    max_length: int | None = Field(None, ge=1)


@api.get("/<ref>/rows", responses={200: RowPage, **problem(400, 404)})
def read_rows(path: DatasetPath, query: RowsQuery) -> dict[str, Any]:
    """A page of rows, with their place in the data set."""
    items, total = datasets.rows(_folder(path), query.offset, query.limit, query.q or None)
    return whole(items, total, query)


@api.get("/<ref>/rejected", responses={200: RejectedPage, **problem(400, 404)})
def read_rejected(path: DatasetPath, query: RejectedQuery) -> dict[str, Any] | Response:
    """A page of the rows that were not accepted, each with its reason."""
    folder = _folder(path)
    if query.download:
        return _download(folder / "rejected.jsonl", f"{path.ref}-rejected.jsonl")
    items, total = datasets.rejected(folder, query.offset, query.limit, query.q, query.kind)
    return whole(items, total, query) | {"kinds": datasets.kinds(folder)}


@api.get("/<ref>/data", responses={200: binary(BYTES, "data.jsonl: one canonical row a line"), **problem(400, 404)})
def read_data(path: DatasetPath) -> Response:
    """The accepted rows as JSONL."""
    reference = registry.dataset_reference(store(), path.ref)
    return _download(store().dataset(reference) / "data.jsonl", f"{reference}.jsonl")


@api.get("/<ref>/original", responses={200: binary(BYTES, "the file as it was uploaded"), **problem(400, 404)})
def read_original(path: DatasetPath) -> Response:
    """The uploaded file."""
    file = next(_folder(path).glob("original*"), None)
    if file is None:
        raise NotFound(f"{path.ref} was not made of an uploaded file, so there is no original.")
    called = registry.dataset_card(store(), path.ref)["source"].replace("\\", "/").rpartition("/")[2]
    return _download(file, "".join(c for c in called if c.isprintable()) or file.name)


@api.get("/<ref>/tokens", responses={200: TokenView, **problem(400, 404)})
def read_tokens(path: DatasetPath, query: TokensQuery) -> dict[str, Any]:
    """A row as the trainer sees it: each token, and whether it is learned."""
    found, _ = datasets.rows(_folder(path), query.row, 1)
    if not found:
        raise NotFound(f"{path.ref} has no row {query.row}.")
    encoder = base_encoder()
    made = row_examples(
        found[0],
        encoder=encoder,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        policy=query.policy,
        effort=query.effort,
        max_length=query.max_length,
    )
    return {"row": query.row, "policy": query.policy, "examples": [_tokens(example, encoder) for example in made]}


def _tokens(example: Example, encoder: Encoder) -> dict[str, Any]:
    pieces = [example.pieces[owner] for owner in example.owners]
    tokens = [
        {"id": id_, "text": text, "channel": p.channel, "role": p.role, "kind": p.kind, "supervised": label != IGNORED}
        for id_, text, p, label in zip(example.ids, encoder.tokens(example.ids), pieces, example.labels, strict=True)
    ]
    return {"tokens": tokens, "supervised": example.supervised, "total": len(tokens), "truncated": example.truncated}


def _folder(path: DatasetPath) -> Path:
    return store().dataset(registry.dataset_reference(store(), path.ref))


def _download(file: Path, name: str) -> Response:
    return send_file(file, mimetype=BYTES, as_attachment=True, download_name=name, max_age=0)
