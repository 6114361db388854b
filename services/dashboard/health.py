"""Which services answer, asked of all at once so that a dead one costs a second and no more."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from shared import queue
from shared.settings import Settings
from shared.store import Store
from shared.workers import trainers

TIMEOUT = 1.0
DISK_SECONDS = 60.0  # what a walk over the data directory is good for
STARTED = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
_disk: dict[Path, tuple[float, dict[str, int]]] = {}
_walking = threading.Lock()


def look(settings: Settings, store: Store) -> tuple[dict[str, dict[str, Any]], int | None, list[Any]]:
    """(state of each service, messages that wait in Redis or None, the GPUs, each with the services that see it)."""
    with ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(queue.waiting, settings)
        inference = pool.submit(_http, settings.inference_url)
        llama = pool.submit(_http, settings.llama_url)
        workers = trainers(settings, store)
        services = {
            "dashboard": _service("up", f"process {os.getpid()}", STARTED),
            "redis": _redis(waiting.result()),
            "trainer": _trainer(workers, settings),
            "inference": inference.result(),
            "llama": llama.result(),
        }
    seen = [("trainer", gpu) for worker in workers if worker["fresh"] for gpu in worker["gpus"]]
    seen += [("inference", gpu) for gpu in services["inference"].pop("gpus", [])]
    return services, waiting.result(), _merged(seen)


def _merged(seen: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each GPU once: in a container each service counts its own from 0, so the uuid says which is which."""
    found: dict[str, dict[str, Any]] = {}
    for service, gpu in seen:
        known = found.setdefault(gpu["uuid"], {**gpu, "held_by": []})
        if service not in known["held_by"]:
            known["held_by"].append(service)
    return list(found.values())


def disk_by_kind(settings: Settings, store: Store) -> dict[str, int]:
    """Bytes of each part of the data directory and of the Hugging Face cache, at most a minute old. `runs` is what is
    left of them without checkpoints and TensorBoard's files."""
    with _walking:
        known = _disk.get(store.root)
        if known and time.monotonic() - known[0] < DISK_SECONDS:
            return known[1]
        parts = {
            "datasets": store.datasets(),
            "runs": store.runs(),
            "adapters": store.adapters(),
            "exports": store.exports(),
            "chats": store.chats(),
            "hf_home": settings.hf_home,
        }
        sizes = {name: folder_bytes(folder) for name, folder in parts.items()}
        for part in ("checkpoints", "tensorboard"):
            sizes[part] = sum(folder_bytes(folder) for folder in store.runs().glob(f"[!.]*/{part}"))
            sizes["runs"] -= sizes[part]
        _disk[store.root] = (time.monotonic(), sizes)
        return sizes


def forget_disk(store: Store) -> None:
    """Let the next look at the disk be a new one: something has been deleted."""
    _disk.pop(store.root, None)


def folder_bytes(folder: Path) -> int:
    """Bytes on the disk below `folder`, hard links counted once."""
    seen: set[int] = set()
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    stat = entry.stat(follow_symlinks=False)
                    if stat.st_nlink == 1 or stat.st_ino not in seen:
                        total += stat.st_blocks * 512
                    seen.add(stat.st_ino)
        except OSError:  # deleted while we looked
            continue
    return total


def _http(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{url}/health", timeout=TIMEOUT, trust_env=False)
    except httpx.HTTPError as error:
        return _service("down", f"no answer from {url} ({type(error).__name__})")
    told = _json_object(answer)
    gpus = {"gpus": told["gpus"]} if told.get("gpus") else {}
    if answer.status_code == 503:
        return {**_service("starting", told.get("detail") or "the model is being loaded", told.get("since")), **gpus}
    if not answer.is_success:
        return _service("down", f"{url}/health answered {answer.status_code}")
    if told.get("run"):
        return {**_service("asleep", f"its GPU is lent to {told['run']}", told.get("since")), **gpus}
    ready = [one["status"] == "ok" for one in told.get("replicas", [])]  # of the servers behind a router
    took = f"answered in {answer.elapsed.total_seconds() * 1000:.0f} ms"
    engine = f"{told['engine']}, " if told.get("engine") else ""
    detail = engine + (f"{sum(ready)} of {len(ready)} servers ready" if ready else took)
    return {**_service("up", detail, told.get("since")), **gpus}


def _json_object(answer: httpx.Response) -> dict[str, Any]:
    """What the health of a service tells besides that it is up; nothing from one that tells nothing."""
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _redis(waiting: int | None) -> dict[str, Any]:
    if waiting is None:
        return _service("down", "Redis does not answer; jobs are kept and are sent when it does")
    return _service("up", f"{waiting} waiting")


def _trainer(workers: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    if not workers:
        return _service("down", "no trainer has started yet")
    if not workers[0]["fresh"]:
        silent = workers[0]["silent"]
        last = datetime.fromtimestamp(time.time() - silent, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return _service("down", f"silent for {silent:.0f} s; more than {settings.stale_seconds:g} s is down", last)
    busy = [worker["busy"] for worker in workers if worker["fresh"] and worker["busy"]]
    return _service("up", f"working on {', '.join(busy)}" if busy else "idle", workers[0]["since"])


def _service(state: str, detail: str, since: str | None = None) -> dict[str, Any]:
    return {"state": state, "detail": detail, "since": since}
