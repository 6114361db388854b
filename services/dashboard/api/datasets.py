"""Data sets: uploaded, imported, mixed, listed and deleted. `rows` reads what is inside."""

from pathlib import Path
from typing import Any

from flask import request
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field

from services.dashboard import intake, uploads
from services.dashboard.api.dataset_models import DatasetCard, DatasetPage, Upload
from services.dashboard.api.paging import Paging, page
from services.dashboard.context import here, store
from services.dashboard.errors import Refusal, problem
from shared import datasets, registry, runs, sweeps
from shared.datasets import NotCached
from shared.schemas import Strict
from shared.store import NotFound, check_name, read_json

FILE = {"type": "string", "format": "binary"}
UPLOAD = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": FILE},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": FILE}, "required": ["file"]}},
    },
}
UPLOAD_ID = Field(
    None, pattern="^[0-9a-f]{32}$", description="of the sender's choice; /api/datasets/uploads/ID says how far it is"
)
api = APIBlueprint("datasets", __name__, url_prefix="/api/datasets")


class ListQuery(Paging):
    q: str = Field("", max_length=200, description="a part of the name")


class UploadQuery(BaseModel):
    name: str | None = Field(None, description="name of the data set; by default made from the file's name")
    licence: str = Field("", max_length=200)
    filename: str | None = Field(None, max_length=1000, description="what the file is called, for a raw body")
    upload: str | None = UPLOAD_ID


class ImportBody(Strict):
    repository: str = Field(description="owner/name on the Hugging Face hub")
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    name: str | None = None
    upload: str | None = UPLOAD_ID


class MixBody(Strict):
    reasoning: str = Field(description="the data set whose rows have thinking")
    direct: str = Field(description="the data set whose rows answer directly")
    share: float = Field(0.75, gt=0, lt=1, description="share of rows from the first")
    total: int | None = Field(None, ge=1)
    seed: int = 0
    name: str


class DatasetPath(BaseModel):
    ref: str = Field(description="name@version, or a name for its newest version")


@api.get("", responses={200: DatasetPage, **problem()})
def list_datasets(query: ListQuery) -> dict[str, Any]:
    """The cards of all data sets, the newest first."""
    return page([card for card in registry.datasets(store()) if query.q.lower() in card["name"]], query)


@api.post(
    "",
    responses={201: DatasetCard, 200: DatasetCard, **problem(400, 413, 507)},
    openapi_extensions={"requestBody": UPLOAD},
)
def upload(query: UploadQuery) -> tuple[dict[str, Any], int]:
    """Upload a file of conversations: as the body, or as the field `file` of a form. The same content again is 200."""
    if query.name:
        check_name(query.name, "data set")
    with uploads.watched(query.upload) as (state, progress):
        count, note = intake.token_counter()
        file, filename = intake.receive(request)
        with file:
            name = query.name or intake.name_from(filename)
            card, status = intake.add(
                lambda folder: datasets.ingest(
                    Path(file.name), filename, folder, count_tokens=count, name=name,
                    licence=query.licence, notes=note, progress=progress,
                )
            )  # fmt: skip
        state.reference = card["reference"]
        return card, status


class UploadPath(BaseModel):
    upload: str = Field(description="the id that came with the upload, 32 hex digits")


@api.get("/uploads/<string(length=32):upload>", responses={200: Upload, **problem(404)})
def read_upload(path: UploadPath) -> dict[str, Any]:
    """How far an upload or an import is: what has been read of it, and what came of it."""
    found = uploads.get(path.upload)
    if found is None:
        raise NotFound(f"There is no upload {path.upload!r}. They are forgotten when the dashboard restarts.")
    return found.model_dump()


@api.post("/import", responses={201: DatasetCard, 200: DatasetCard, **problem(400, 409, 413, 507)})
def import_from_hub(body: ImportBody) -> tuple[dict[str, Any], int]:
    """Make a data set of one that is in the Hugging Face cache, without a network."""
    name = check_name(body.name, "data set") if body.name else intake.name_from(body.repository)
    count, note = intake.token_counter()
    try:
        with uploads.watched(body.upload) as (state, progress):
            card, status = intake.add(
                lambda folder: datasets.from_hub(
                    body.repository, folder, split=body.split, config=body.config, revision=body.revision,
                    cache_dir=here().settings.hf_home / "hub", count_tokens=count, name=name, notes=note,
                    progress=progress,
                )
            )  # fmt: skip
            state.reference = card["reference"]
            return card, status
    except NotCached as error:
        way_out = f"Fetch it first: tandem fetch --dataset {body.repository}"
        raise Refusal(409, "conflict", f"{body.repository} is not in the Hugging Face cache. {way_out}") from error


@api.post("/mix", responses={201: DatasetCard, 200: DatasetCard, **problem(400, 404, 413, 507)})
def mix(body: MixBody) -> tuple[dict[str, Any], int]:
    """Make one data set of two, in a given proportion."""
    check_name(body.name, "data set")
    parents = [store().dataset(registry.dataset_reference(store(), ref)) for ref in (body.reasoning, body.direct)]
    count, note = intake.token_counter()
    return intake.add(
        lambda folder: datasets.mix(
            *parents,
            folder,
            share=body.share,
            total=body.total,
            seed=body.seed,
            name=body.name,
            count_tokens=count,
            notes=note,
        )
    )


@api.get("/<ref>", responses={200: DatasetCard, **problem(400, 404)})
def read(path: DatasetPath) -> dict[str, Any]:
    """The card of a data set."""
    return registry.dataset_card(store(), path.ref)


@api.delete("/<ref>", responses={204: None, **problem(400, 404, 409)})
def delete(path: DatasetPath) -> tuple[str, int]:
    """Delete a data set that no run uses which is queued or running, and no sweep that has not ended."""
    reference = registry.dataset_reference(store(), path.ref)
    if users := [*users_of("dataset", reference), *_sweeps_of(reference)]:
        raise Refusal(409, "conflict", f"{reference} is used by {', '.join(users)}. Wait for it, or cancel it.", users)
    intake.remove(store(), store().dataset(reference), store().datasets())
    return "", 204


def users_of(field: str, reference: str) -> list[str]:
    """The queued and running runs whose job names `reference` in `field`."""
    active = runs.in_state(store(), "queued", "running")
    return [
        run_id for run_id, _ in active if read_json(store().run(run_id) / "spec.json")["job"].get(field) == reference
    ]


def _sweeps_of(reference: str) -> list[str]:
    """The sweeps that have trials of this data set before them."""
    return [
        sweep_id for sweep_id in sweeps.active(store()) if sweeps.read_spec(store(), sweep_id).job.dataset == reference
    ]
