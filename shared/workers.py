"""The trainers' own files: which of them live, what they work on, and the GPUs they see."""

import json
import time
from collections.abc import Collection
from typing import Any

from shared.settings import Settings
from shared.store import Store

NEED_A_GPU = ("train", "evaluate", "export")  # the kinds of run that load a model


def trainers(settings: Settings, store: Store) -> list[dict[str, Any]]:
    """Each trainer's file, the freshest first; `fresh` says whether its heartbeat is recent, `uses` how many of its GPUs its
    run takes, the first ones (None: all, for all that is known)."""
    found = []
    for path in store.workers().glob("trainer-*.json"):
        try:
            silent = time.time() - path.stat().st_mtime
            value = json.loads(path.read_bytes())
        except (OSError, ValueError):  # gone, or being written
            continue
        known = {"gpus": [], "busy": None, "kind": None, "since": None, "uses": None, **value}
        found.append({**known, "silent": silent, "fresh": silent < settings.stale_seconds})
    return sorted(found, key=lambda worker: worker["silent"])


def holder(settings: Settings, store: Store, gpus: Collection[str]) -> str | None:
    """The run that needs one of these GPUs, given by their uuids, now. A silent worker's run needs none."""
    for worker in trainers(settings, store):
        works = worker["fresh"] and worker["busy"] and worker["kind"] in NEED_A_GPU
        if works and any(gpu["uuid"] in gpus for gpu in worker["gpus"][: worker["uses"]]):
            return worker["busy"]
    return None
