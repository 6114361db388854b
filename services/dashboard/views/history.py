"""The watch's samples as columns for charts: evenly spaced, thinned, with gaps where nothing was noted."""

import time
from collections.abc import Iterable
from typing import Any

from services.dashboard.watch import SAMPLE_SECONDS

POINTS = 600
HOST = ("free", "memory_used", "load")
GPU = ("memory_used", "use_percent")


def columns(samples: Iterable[dict[str, Any]], seconds: int, gpus: list[dict[str, Any]]) -> dict[str, Any]:
    """At most `POINTS` rows of the last `seconds`: each the mean of the samples in its span, None where there is none.

    `gpus` are those of now, by which those of then get their names."""
    span = max(seconds / POINTS, 1.5 * SAMPLE_SECONDS)  # wider than the pace of samples, or their jitter makes gaps
    last = time.time()
    count = min(POINTS, int(seconds // span))
    rows: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for sample in samples:
        place = count - 1 - int((last - sample["time"]) // span)
        if 0 <= place < count:
            rows[place].append(sample)
    return {
        "time": [round(last - (count - 1 - i) * span) for i in range(count)],
        **{name: [_mean([sample.get(name) for sample in row]) for row in rows] for name in HOST},
        "gpus": [_gpu(uuid, rows, gpus) for uuid in _uuids(rows, gpus)],
    }


def _uuids(rows: list[list[dict[str, Any]]], gpus: list[dict[str, Any]]) -> list[str]:
    then = [gpu["uuid"] for row in rows for sample in row for gpu in sample["gpus"]]
    return list(dict.fromkeys([*(gpu["uuid"] for gpu in gpus), *then]))


def _gpu(uuid: str, rows: list[list[dict[str, Any]]], gpus: list[dict[str, Any]]) -> dict[str, Any]:
    now = next((gpu for gpu in gpus if gpu["uuid"] == uuid), {})
    then = [[gpu for sample in row for gpu in sample["gpus"] if gpu["uuid"] == uuid] for row in rows]
    return {
        "uuid": uuid,
        "name": now.get("name"),
        "memory_total": now.get("memory_total"),
        "held_by": now.get("held_by", []),
        **{name: [_mean([gpu.get(name) for gpu in row]) for row in then] for name in GPU},
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None
