"""What fills the disk, and what of it can go without loss or at a loss that is said."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.dashboard import health, intake
from shared import cache, registry, runs
from shared.schemas import NOT_SERVED, Status
from shared.settings import Settings
from shared.store import Store, read_json

RESUMABLE = 7 * 24 * 3600  # seconds for which the checkpoints of a run that did not succeed are kept for its resume
Jobs = list[tuple[str, dict[str, Any], Status]]
KINDS = {
    "hf_home": "Hugging Face cache",
    "exports": "Exports",
    "checkpoints": "Checkpoints of runs",
    "adapters": "Adapters",
    "datasets": "Data sets",
    "runs": "Runs: events and logs",
    "tensorboard": "Runs: TensorBoard",
    "chats": "Chats",
}


def deletable(settings: Settings, store: Store) -> list[dict[str, Any]]:
    """What can be deleted, the largest first: kind, name, bytes, why it is safe, what is lost, and the request to send.

    Never what an alias points at, what a queued or running run uses, or the newest version of a data set."""
    jobs = _jobs(store)
    found = [*_checkpoints(store, jobs), *_exports(settings, store), *_datasets(store, jobs), *_abandoned(store)]
    found += _cached(settings, store, jobs)
    return sorted((item for item in found if item["bytes"]), key=lambda item: item["bytes"], reverse=True)


def _jobs(store: Store) -> Jobs:
    """(id, job, status) of every run."""
    found = []
    for run_id in runs.ids(store):
        try:
            found.append((run_id, read_json(store.run(run_id) / "spec.json")["job"], runs.read_status(store, run_id)))
        except (FileNotFoundError, runs.NotFound):  # deleted while we look
            continue
    return found


def _checkpoints(store: Store, jobs: Jobs) -> Iterator[dict[str, Any]]:
    published = {card.run: card.reference for card in registry.adapters(store)}
    long_ago = datetime.fromtimestamp(time.time() - RESUMABLE, UTC).isoformat()
    for run_id, _, status in jobs:
        if status.state == "succeeded":
            adapter = published.get(run_id)
            why = f"It succeeded, and {adapter} is published." if adapter else "It succeeded: nothing resumes it."
            lost = "Nothing that is used."
        elif status.state in ("failed", "cancelled") and (status.ended or "9") < long_ago:
            why = f"It {'was cancelled' if status.state == 'cancelled' else 'failed'} more than a week ago."
            lost = "A resume would begin again from its first step."
        else:
            continue
        size = _size(store.run(run_id) / "checkpoints")
        yield _item("checkpoints", run_id, size, why, lost, f"/api/runs/{run_id}/checkpoints", page=f"/runs/{run_id}")


def _exports(settings: Settings, store: Store) -> Iterator[dict[str, Any]]:
    aliases, cards = registry.aliases(store), registry.exports(store)
    served = set(aliases.values())
    if settings.gguf_alias not in aliases:  # llama.cpp then serves the newest
        served |= {card.file for card in [card for card in cards if card.encoding not in NOT_SERVED][:1]}
    adapters = {card.reference for card in registry.adapters(store)}
    for card in cards:
        if card.file not in served and card.adapter in adapters:
            why = f"No alias points at it, and {card.adapter} is there to make it again."
            lost = "Its download address, until it is made again."
            yield _item("export", card.file, _size(store.export(card.file)), why, lost, f"/api/exports/{card.file}")


def _datasets(store: Store, jobs: Jobs) -> Iterator[dict[str, Any]]:
    used = {card.dataset for card in registry.adapters(store)}
    used |= {str(job.get("dataset")) for _, job, status in jobs if status.state != "succeeded"}
    newest: dict[str, str] = {}
    for card in registry.datasets(store):
        reference = card["reference"]
        name = reference.partition("@")[0]
        newer = newest.setdefault(name, reference)
        if newer != reference and reference not in used:
            why = f"{newer} is newer, and no adapter was made of this one."
            size = _size(store.dataset(reference))
            yield _item("dataset", reference, size, why, "This version's rows.", f"/api/datasets/{reference}")


def _abandoned(store: Store) -> Iterator[dict[str, Any]]:
    if found := intake.abandoned(store, time.time()):
        name = f"{len(found)} left-over{'s' if len(found) > 1 else ''} of what broke off"
        why = "An upload or a run was interrupted while it wrote this, more than a day ago."
        yield _item("abandoned", name, sum(map(_size, found)), why, "Nothing.", "/api/storage/abandoned")


def _cached(settings: Settings, store: Store, jobs: Jobs) -> Iterator[dict[str, Any]]:
    going = {
        job["repository"] for _, job, s in jobs if job.get("action") == "remove" and s.state in ("queued", "running")
    }
    needed = cache.needed(settings, store)
    for found in cache.repositories(settings.hf_home):
        if (found.type == "model" and found.repository in needed) or found.repository in going:
            continue
        why = "It is the base of nothing here." if found.type == "model" else "What was imported of it is a copy."
        body = {"kind": "fetch", "action": "remove", "repository": found.repository, "repository_type": found.type}
        lost = "It would have to be fetched again."
        yield _item("cache", found.repository, found.bytes, why, lost, "/api/runs", method="POST", body=body)


def _item(
    kind: str,
    name: str,
    size: int,
    why: str,
    lost: str,
    path: str,
    method: str = "DELETE",
    body: dict[str, Any] | None = None,
    page: str | None = None,
) -> dict[str, Any]:
    request = {"method": method, "path": path, "body": body}
    return {"kind": kind, "name": name, "bytes": size, "why": why, "lost": lost, "page": page, "request": request}


def _size(path: Path) -> int:
    """Bytes on the disk of a file or of all that is in a folder; 0 for what is gone."""
    try:
        return health.folder_bytes(path) if path.is_dir() else path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
