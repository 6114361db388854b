"""A run is a directory: created once, claimed by one attempt at a time, told in events, ended with a status."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

from shared.schemas import ENDED, Job, Kind, Recipe, RunSpec, State, Status, now
from shared.store import NotFound, Store, append_line, publish, read_json, write_atomic, write_json

PAGE_BYTES = 1 << 20
RESERVE = 64 << 10  # bytes kept free for a run that is worked on, so that its end can be written on a full disk


class RunConflict(RuntimeError):
    """What was asked does not fit the state that the run is in."""


def new_id(kind: Kind) -> str:
    """An id that sorts by time and can be read aloud: `train-20261121-051359-3f2a`."""
    return f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def create(
    store: Store,
    run_id: str,
    kind: Kind,
    job: Job,
    recipe: Recipe | None = None,
    cloned_from: str | None = None,
    request_id: str | None = None,
    sweep: str | None = None,
    trial: int | None = None,
) -> RunSpec:
    """Make the directory of a queued run, whole or not at all, and return its spec; if it is there already, that one's."""
    origin = {"cloned_from": cloned_from, "request_id": request_id, "sweep": sweep, "trial": trial}
    spec = RunSpec(id=run_id, kind=kind, job=job, recipe=recipe, **origin)
    with store.staging(store.runs()) as folder:
        (folder / "attempts").mkdir()
        (folder / "checkpoints").mkdir()
        write_json(folder / "spec.json", spec.model_dump(exclude_none=True))
        write_json(folder / "status.json", Status().model_dump(exclude_none=True))
        (folder / "events.jsonl").touch()
        if publish(folder, store.run(run_id)):
            return spec
    return read_spec(store, run_id)


def exists(store: Store, run_id: str) -> bool:
    return (store.run(run_id) / "spec.json").exists()


def read_spec(store: Store, run_id: str) -> RunSpec:
    """Raises NotFound if there is no such run."""
    return RunSpec.model_validate(_json(store, run_id, "spec.json"))


def read_status(store: Store, run_id: str) -> Status:
    """How the run stands. A queued run that was cancelled reads as cancelled, though no trainer has seen it yet."""
    return _status(store, run_id, _json(store, run_id, "status.json"))


def _status(store: Store, run_id: str, raw: dict[str, Any]) -> Status:
    status = Status.model_construct(**{**_DEFAULTS, **raw})
    if status.state == "queued" and cancel_requested(store, run_id):
        status = status.model_copy(update={"state": "cancelled", "reason": "Cancelled before it started."})
    return status


_DEFAULTS = {name: field.default for name, field in Status.model_fields.items()}


def ids(store: Store) -> list[str]:
    """All runs, the newest first."""
    folder = store.runs()
    try:
        names = [name for name in os.listdir(folder) if name[0] != "."]
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # deleted while we look
            found.append((read_json(f"{folder}/{name}/spec.json")["created"], name))
    return [name for _, name in sorted(found, reverse=True)]


def in_state(store: Store, *states: State) -> list[tuple[str, Status]]:
    """The runs in one of `states`, the newest first."""
    found = []
    for run_id in ids(store):
        with contextlib.suppress(NotFound):  # deleted while we look
            if (status := read_status(store, run_id)).state in states:
                found.append((run_id, status))
    return found


def by_state(store: Store) -> dict[State, list[str]]:
    """The ids of all runs by their state, in no order; every state is there. A file's look a run, and no more."""
    found: dict[State, list[str]] = {state: [] for state in get_args(State)}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(store.runs()):
            if name[0] != ".":
                with contextlib.suppress(NotFound):  # deleted while we look
                    found[read_status(store, name).state].append(name)
    return found


# ---- the claim: which worker holds the run


def attempts(store: Store, run_id: str) -> int:
    """How many attempts have been claimed."""
    try:
        return max((int(name) for name in os.listdir(store.run(run_id) / "attempts")), default=0)
    except FileNotFoundError:
        return 0


def claim(store: Store, run_id: str, attempt: int, worker: str) -> bool:
    """Take attempt `attempt` of the run for `worker`; False if somebody has it or it is not the next one.

    O_EXCL makes the file appear for one claimant only, so a message that is delivered twice works once."""
    if attempt != attempts(store, run_id) + 1 or read_status(store, run_id).state != "queued":
        return False
    path = store.run(run_id) / "attempts" / str(attempt)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "w") as file:
        json.dump({"worker": worker, "since": now()}, file)
    with contextlib.suppress(OSError):  # no room even for that: then its end may be told only when there is some
        (store.run(run_id) / "reserve").write_bytes(bytes(RESERVE))
    return True


def unclaim(store: Store, run_id: str, attempt: int) -> None:
    """Give an attempt back that was not begun, and the room that it kept."""
    (store.run(run_id) / "reserve").unlink(missing_ok=True)
    (store.run(run_id) / "attempts" / str(attempt)).unlink()


def heartbeat(store: Store, run_id: str, attempt: int) -> None:
    """Say that the attempt is alive: the claim's modification time."""
    os.utime(store.run(run_id) / "attempts" / str(attempt))


def silence(store: Store, run_id: str) -> float:
    """Seconds since the last attempt's heartbeat; infinite if there was none."""
    last = attempts(store, run_id)
    if not last:
        return float("inf")
    return time.time() - (store.run(run_id) / "attempts" / str(last)).stat().st_mtime


# ---- status: one writer at a time; whoever queues it, then the trainer that claimed it


def update(store: Store, run_id: str, **changes: Any) -> Status:
    """Replace fields of the status; None removes a value."""
    status = Status.model_validate({**_json(store, run_id, "status.json"), **changes})
    write_json(store.run(run_id) / "status.json", status.model_dump(exclude_none=True))
    return status


def finish(store: Store, run_id: str, state: State, reason: str | None = None, result: str | None = None) -> None:
    """Record how the run ended, in the events and then in the status; on a full disk, in the room that its claim kept."""
    (store.run(run_id) / "reserve").unlink(missing_ok=True)
    append_event(store, run_id, "status", state=state, reason=reason, result=result)
    update(store, run_id, state=state, reason=reason, result=result, ended=now())


def requeue(store: Store, run_id: str) -> int:
    """Queue a run that ended unfinished, or whose worker died, for another attempt; return the attempt's number."""
    for name in ("cancel", "stop", "reserve"):
        (store.run(run_id) / name).unlink(missing_ok=True)
    update(store, run_id, state="queued", reason=None, ended=None, queued=now())
    return attempts(store, run_id) + 1


def resume(store: Store, run_id: str) -> int:
    """`requeue` for a person: raises RunConflict unless the run has failed or was cancelled."""
    state = read_status(store, run_id).state
    if state not in ("failed", "cancelled"):
        raise RunConflict(f"Run {run_id} is {state}; only a failed or cancelled run can be resumed.")
    return requeue(store, run_id)


def check_ended(store: Store, run_id: str) -> None:
    """Raises RunConflict unless the run has ended and its trainer knows it: before that, deleting would lose its work."""
    state = read_status(store, run_id).state
    if state not in ENDED:
        raise RunConflict(f"Run {run_id} is {state}. Cancel it first, or wait until it has ended.")
    if _json(store, run_id, "status.json")["state"] == "queued":
        raise RunConflict(f"Run {run_id} is cancelled, but its message still waits in the queue. Try again in a while.")


def request_cancel(store: Store, run_id: str, reason: str = "") -> None:
    """Ask the run to stop after its current step; `reason` is what it then says. Raises RunConflict if it has ended."""
    state = read_status(store, run_id).state
    if state in ENDED:
        raise RunConflict(f"Run {run_id} has already {'been ' if state == 'cancelled' else ''}{state}.")
    write_atomic(store.run(run_id) / "cancel", reason)


def cancel_requested(store: Store, run_id: str) -> bool:
    return (store.run(run_id) / "cancel").exists()


def cancel_reason(store: Store, run_id: str) -> str:
    """Why the run was asked to stop; empty where nobody said, or nobody asked."""
    path = store.run(run_id) / "cancel"
    return path.read_text() if path.exists() else ""


def request_stop(store: Store, run_id: str) -> None:
    """Ask a training run to end early and publish the best that it has. Raises RunConflict if it cannot."""
    spec, state = read_spec(store, run_id), read_status(store, run_id).state
    if spec.kind != "train":
        raise RunConflict(f"Run {run_id} is of the kind {spec.kind!r}; only training can be stopped early. Cancel it.")
    if state != "running":
        raise RunConflict(f"Run {run_id} is {state}; only a running one can be stopped early.")
    (store.run(run_id) / "stop").touch()


def stop_requested(store: Store, run_id: str) -> bool:
    return (store.run(run_id) / "stop").exists()


# ---- events: one line each, append only


def append_event(store: Store, run_id: str, type_: str, **fields: Any) -> None:
    """Append one event; fields that are None are left out."""
    event = {"time": now(), "type": type_, **{key: value for key, value in fields.items() if value is not None}}
    append_line(store.run(run_id) / "events.jsonl", json.dumps(event, ensure_ascii=False, default=str))


def read_events(
    store: Store, run_id: str, offset: int = 0, limit_bytes: int = PAGE_BYTES
) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """The events that start at byte `offset`, as (offset after the event, event), and the offset to go on from.

    Only whole lines are read, at most about `limit_bytes` at once. Raises NotFound, or ValueError for an offset that
    is not the start of a line."""
    path = store.run(run_id) / "events.jsonl"
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 <= offset <= size or (offset and _byte_before(file, offset) != b"\n"):
                raise ValueError(
                    f"{offset} is not the start of an event of run {run_id}; the offsets come with the events."
                )
            file.seek(offset)
            block = file.read(limit_bytes)
            if block and not block.endswith(b"\n"):
                block = block[: block.rfind(b"\n") + 1] or block + file.readline()
    except FileNotFoundError:
        raise NotFound(f"There is no run {run_id!r}.") from None
    found = []
    for line in block.splitlines(keepends=True):
        if line.endswith(b"\n"):
            offset += len(line)
            found.append((offset, json.loads(line)))
    return found, offset


def all_events(store: Store, run_id: str, *types: str) -> Iterator[dict[str, Any]]:
    """Every event of the run, or those of the given types, in order. Lines of other types are not parsed: `append_event`
    writes time and type first."""
    wanted = re.compile(f'"type": "(?:{"|".join(types)})"'.encode())
    with open(store.run(run_id) / "events.jsonl", "rb") as file:
        for line in file:
            if line.endswith(b"\n") and (not types or wanted.search(line, 0, 99)):
                event = json.loads(line)
                if not types or event["type"] in types:
                    yield event


def _byte_before(file: Any, offset: int) -> bytes:
    file.seek(offset - 1)
    return file.read(1)


def _json(store: Store, run_id: str, name: str) -> dict[str, Any]:
    try:
        return read_json(f"{store.run(run_id)}/{name}")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no run {run_id!r}.") from None
