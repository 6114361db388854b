"""How a file or another data set becomes a published data set: staged beside its place, then renamed into it."""

import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from flask import Request

from services.dashboard import health
from services.dashboard.context import here
from services.dashboard.errors import Refusal
from shared import registry
from shared.datasets import Card
from shared.datasets.errors import RowError
from shared.harmony import Encoder, HarmonyError, length
from shared.hub import encoder, snapshot
from shared.store import NotFound, Store, free_bytes, publish, take_away

BLOCK = 1 << 20
ABANDONED = 24 * 3600  # seconds after which what a crash left behind is taken away
Counter = Callable[[dict[str, Any]], int]


def base_encoder() -> Encoder:
    """The base model's encoder. Raises NotFound, with how to fetch it, when the base is not in the cache."""
    settings = here().settings
    return encoder(snapshot(settings.base_model, "main", settings.hf_home))


def token_counter() -> tuple[Counter | None, str]:
    """What counts the tokens of a row, and a note for the card: why there is none, when the base is not there."""
    try:
        base = base_encoder()
    except NotFound:
        return None, f"Tokens are not counted: {here().settings.base_model} is not in the Hugging Face cache yet."
    date = f"{datetime.now(UTC):%Y-%m-%d}"

    def count(row: dict[str, Any]) -> int:
        try:
            return length(row, base, date)
        except HarmonyError as error:
            raise RowError(str(error)) from None

    return count, ""


def add(make: Callable[[Path], Card]) -> tuple[dict[str, Any], int]:
    """Publish what `make` writes into the folder it is given: (card, 201), or (the card that exists, 200) for known content."""
    store = here().store
    with store.staging(store.datasets()) as folder:
        card = make(folder / "dataset")
        reference = f"{card.name}@{card.version}"
        created = publish(folder / "dataset", store.dataset(reference))
    return registry.dataset_card(store, reference), 201 if created else 200


def receive(request: Request) -> tuple[IO[bytes], str]:
    """The uploaded file, on disk in the data directory, and the name its owner gave it. It vanishes when it is closed.

    Raises Refusal 413, 507 or 400 before anything large is read where the size is announced, while reading otherwise."""
    settings, store = here().settings, here().store
    request.max_content_length = settings.upload_limit_bytes
    size = request.content_length or 0
    if size > settings.upload_limit_bytes:
        raise Refusal(
            413,
            "too_large",
            f"The file has {size:,} bytes; TANDEM_UPLOAD_LIMIT_BYTES allows {settings.upload_limit_bytes:,}.",
        )
    if free_bytes(store.root) < 2 * size + settings.min_free_bytes:  # the file as it came, and its rows
        raise Refusal(
            507,
            "refused",
            f"Only {free_bytes(store.root) >> 20:,} MiB are free. Delete exports or data sets that are not needed.",
        )
    if request.mimetype == "multipart/form-data":
        part = request.files.get("file")
        if part is None:
            raise Refusal(400, "bad_request", "The form has no file: send it as the field 'file'.")
        part.stream.flush()
        return part.stream, part.filename or "upload"
    file = upload_file(store)
    try:
        shutil.copyfileobj(request.stream, file, BLOCK)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file, request.args.get("filename") or "upload"


def upload_file(store: Store) -> IO[bytes]:
    """A file for an upload, on the data directory's disk; gone when it is closed."""
    store.datasets().mkdir(parents=True, exist_ok=True)
    return tempfile.NamedTemporaryFile(dir=store.datasets(), prefix=".upload-")  # type: ignore[return-value]


def name_from(filename: str) -> str:
    """A data set's name from what a person called the file: `My Chats (2).jsonl` becomes `my-chats-2`."""
    stem = Path(filename.replace("\\", "/")).name.lower().partition(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:64].strip("-") or "conversations"


def remove(store: Store, folder: Path, beside: Path) -> None:
    """`store.take_away`, and the disk is measured anew. Raises NotFound if somebody was faster."""
    take_away(store, folder, beside)
    health.forget_disk(store)


def abandoned(store: Store, now: float) -> list[Path]:
    """Staging folders and uploads that a crash left behind more than a day ago (`now` in Unix seconds)."""
    places = (store.datasets(), store.runs(), store.adapters(), store.exports(), store.sweeps())
    found = [path for place in places for pattern in (".staging-*", ".upload-*") for path in place.glob(pattern)]
    return [path for path in found if now - _modified(path, now) > ABANDONED]


def clear_abandoned(store: Store, now: float) -> None:
    """Delete what is `abandoned`."""
    for path in abandoned(store, now):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _modified(path: Path, gone: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return gone
