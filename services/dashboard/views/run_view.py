"""How a run is shown: one line of the list, all of it, its curve and its log."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.dashboard.views.told import told
from shared import runs
from shared.schemas import Status
from shared.speed import Speed
from shared.store import NotFound, Store, read_json

FIELDS = ("state", "step", "steps", "loss", "reason", "result", "queued", "started", "ended", "attempt")
TOLD = ("data", "trainable", "proof", "evaluation")  # events that are told once an attempt; the last one counts
SMALL = 120  # points of a small curve
COLUMNS = (
    "step",
    "loss",
    "validation_loss",
    "learning_rate",
    "grad_norm",
    "epoch",
    "tokens_per_second",
    "memory_bytes",
)


def select(
    store: Store, state: str | None, kind: str | None, q: str, offset: int, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """A page of runs, the newest first, and how many match. Only what is filtered by or shown is read."""
    found = runs.ids(store)
    if kind or q:
        found = [run_id for run_id, spec in _read(spec_of, store, found) if _matches(spec, kind, q.lower())]
    if state:
        found = [run_id for run_id, status in _read(runs.read_status, store, found) if status.state == state]
    return [line for _, line in _read(item, store, found[offset : offset + limit])], len(found)


def item(store: Store, run_id: str) -> dict[str, Any]:
    """One line of the list. Raises NotFound."""
    return line(spec_of(store, run_id), runs.read_status(store, run_id))


def line(spec: dict[str, Any], status: Status) -> dict[str, Any]:
    """A run's spec, as it is in the file, and its status in one flat object."""
    job = spec["job"]
    named = {key: job.get(key) for key in ("name", "dataset", "adapter", "encoding", "repository", "models")}
    named |= {
        "recipe_name": job.get("recipe"),
        "action": job.get("action", "fetch") if spec["kind"] == "fetch" else None,
    }
    named |= {"sweep": spec.get("sweep"), "trial": spec.get("trial")}
    return {"id": spec["id"], "kind": spec["kind"], "created": spec["created"], **named} | {
        name: getattr(status, name) for name in FIELDS
    }


def detail(store: Store, run_id: str) -> dict[str, Any]:
    """All that is known of a run. Raises NotFound."""
    spec = runs.read_spec(store, run_id)
    story = told(store, run_id)
    last = {name: story.last.get(name) for name in TOLD}
    return {
        **item(store, run_id),
        "spec": spec.model_dump(mode="json"),
        "cloned_from": spec.cloned_from,
        "attempts": list(_attempts(store.run(run_id) / "attempts")),
        "cancel_requested": runs.cancel_requested(store, run_id),
        "stop_requested": runs.stop_requested(store, run_id),
        "checkpoints": list(_checkpoints(store.run(run_id) / "checkpoints")),
        "warnings": story.warnings,
        "speed": [Speed.model_validate(row).model_dump() for row in story.rows],
        **{name: event and {k: v for k, v in event.items() if k != "type"} for name, event in last.items()},
    }


def metrics(store: Store, run_id: str, points: int) -> dict[str, Any]:
    """The curve as columns and at most `points` rows, the last one among them. Raises NotFound.

    Lines are thinned before they are parsed. Validations are few and are thinned apart, so that none is lost among steps."""
    steps, validations = _Thinned(points - points // 4), _Thinned(points // 4)
    try:
        with open(store.run(run_id) / "events.jsonl", "rb") as file:
            for text in file:
                if b'"type": "metric"' in text and text.endswith(b"\n"):
                    (validations if b'"validation_loss": ' in text else steps).add(text)
    except FileNotFoundError:
        raise NotFound(f"There is no run {run_id!r}.") from None
    events = [e for e in map(json.loads, steps.all() + validations.all()) if e["type"] == "metric"]
    events.sort(key=lambda event: event["step"])
    extra = {key for event in events for key in event} - {*COLUMNS, "time", "type"}
    columns = [name for name in COLUMNS if name in ("step", "loss") or any(name in event for event in events)] + sorted(
        extra
    )
    return {"columns": columns, "rows": [[event.get(name) for name in columns] for event in events]}


def losses(store: Store, run_id: str) -> list[float]:
    """The training losses for a small curve; none when the run is gone."""
    try:
        curve = metrics(store, run_id, SMALL)
    except NotFound:
        return []
    at = curve["columns"].index("loss")
    return [row[at] for row in curve["rows"] if row[at] is not None]


def log(store: Store, run_id: str, after: int | None, limit: int) -> tuple[str, int]:
    """Up to `limit` bytes of the log as text, and the byte to go on from; from the end when `after` is None."""
    path = store.run(run_id) / "log.txt"
    if not path.exists():
        return "", 0
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - limit) if after is None else after
        file.seek(start)
        block = file.read(limit)
    whole = (
        block[: block.rfind(b"\n") + 1] or block
    )  # a line, and with it a character, that is being written comes later
    return whole.decode("utf-8", "replace"), start + len(whole)


def events_end(store: Store, run_id: str) -> int:
    """The offset after the last whole event; a line that is being written comes later."""
    with open(store.run(run_id) / "events.jsonl", "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - (1 << 20))
        file.seek(start)
        return start + file.read(size - start).rfind(b"\n") + 1


def spec_of(store: Store, run_id: str) -> dict[str, Any]:
    """`spec.json` as it is. Raises NotFound."""
    try:
        return read_json(f"{store.run(run_id)}/spec.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no run {run_id!r}.") from None


def _read(reader: Callable[[Store, str], Any], store: Store, found: list[str]) -> Iterator[tuple[str, Any]]:
    """Each run and what `reader` reads of it, without those that are deleted while we look."""
    for run_id in found:
        with contextlib.suppress(NotFound):
            yield run_id, reader(store, run_id)


class _Thinned:
    """At most `most` of the lines that are added, evenly spread, and the last one."""

    def __init__(self, most: int) -> None:
        self.most, self.every, self.seen = max(most - 1, 1), 1, 0
        self.kept: list[bytes] = []
        self.last = b""

    def add(self, text: bytes) -> None:
        if self.seen % self.every == 0:
            if len(self.kept) == self.most:
                self.kept, self.every = self.kept[::2], 2 * self.every
            if self.seen % self.every == 0:
                self.kept.append(text)
        self.seen, self.last = self.seen + 1, text

    def all(self) -> list[bytes]:
        return self.kept if not self.kept or self.kept[-1] == self.last else [*self.kept, self.last]


def _matches(spec: dict[str, Any], kind: str | None, q: str) -> bool:
    job = spec["job"]
    words = [spec["id"], *(job.get(key) for key in ("name", "dataset", "adapter", "repository", "recipe"))]
    words += job.get("models") or []
    return kind in (None, spec["kind"]) and (not q or any(q in word.lower() for word in words if word))


def _attempts(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*"), key=lambda path: int(path.name)):
        beat = (
            datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
        text = path.read_text()
        claim = json.loads(text) if text.endswith("}") else {}  # being written
        yield {"attempt": int(path.name), "worker": claim.get("worker"), "since": claim.get("since"), "heartbeat": beat}


def _checkpoints(folder: Path) -> Iterator[dict[str, int]]:
    found = {
        int(p.name.rpartition("-")[2]): p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()
    }
    for step, path in sorted(found.items()):
        yield {"step": step, "bytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file())}
