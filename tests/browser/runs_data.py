"""Runs as the trainer would leave them, written at once: for pages that must show many of them, or long ones."""

import json
from datetime import UTC, datetime, timedelta

from services.cli.client import Client
from shared import registry, runs
from shared.recipes import resolve
from shared.schemas import Job, RunSpec, Status
from shared.store import Store
from tests.browser.conftest import Site
from tests.conftest import ROOT

LINE = (
    '{{"time": "{}", "type": "metric", "step": {}, "loss": {:.4f}, "learning_rate": 0.001, "grad_norm": 0.5, '
    '"tokens_per_second": 900.0, "memory_bytes": 1500000000}}\n'
)


def dataset(site: Site) -> str:
    """The reference of a small data set; uploaded once."""
    found = registry.datasets(site.store)
    if found:
        return found[0]["reference"]
    file = ROOT / "demo" / "conversations.jsonl"
    client = Client(site.url, key=site.key)
    return client.upload("/datasets", file, lambda size: None, filename=file.name, name="workshop")["reference"]


def running(store: Store, run_id: str, steps: int = 400) -> None:
    """A run that some trainer has claimed and is alive; `step` tells its points."""
    job = Job(dataset="workshop@0", recipe="tiny", name="streamed")
    runs.create(store, run_id, "train", job, resolve("tiny", {"steps": steps}))
    runs.claim(store, run_id, 1, "here:1")
    runs.update(store, run_id, state="running", attempt=1, steps=steps, started=datetime.now(UTC).isoformat())
    runs.append_event(store, run_id, "status", state="running", step=0, steps=steps, attempt=1)


def step(store: Store, run_id: str, number: int) -> None:
    """One more point of the curve."""
    runs.heartbeat(store, run_id, 1)
    loss = 0.2 + 2 / number
    runs.append_event(store, run_id, "metric", step=number, loss=loss, learning_rate=1e-3, tokens_per_second=900.0)
    runs.update(store, run_id, step=number, loss=loss)


def ended(store: Store, run_id: str, points: int, moment: datetime) -> None:
    """A run that has succeeded with a curve of `points`, written without the care that a real one takes."""
    folder = store.run(run_id)
    (folder / "attempts").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    when = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    job = Job(dataset="workshop@0", recipe="tiny", name=f"old-{run_id[-4:]}")
    spec = RunSpec(id=run_id, kind="train", created=when, job=job, recipe=resolve("tiny"))
    (folder / "spec.json").write_text(spec.model_dump_json(exclude_none=True))
    status = Status(state="succeeded", attempt=1, step=points, steps=points, loss=0.5, queued=when, started=when)
    status.ended = (moment + timedelta(seconds=60)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    (folder / "status.json").write_text(json.dumps(status.model_dump(exclude_none=True)))
    lines = (LINE.format(when, n, 0.5 + 2 / n) for n in range(1, points + 1))
    (folder / "events.jsonl").write_text("".join(lines))
