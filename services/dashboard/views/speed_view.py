"""How the speed of models is shown: one benchmark as a table that fills, and all of them over time."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from services.dashboard.views import run_view
from shared import runs
from shared.speed import Speed
from shared.store import NotFound, Store

RUNS = 200  # benchmarks that are looked back at
FIGURES = {
    "tokens_per_second_all": "Tokens per second, all together",
    "tokens_per_second": "Tokens per second of each answer",
    "first_token": "Seconds to the first token",
}
Row = dict[str, Any]  # what `Speed` has; of a history, with the `run` that measured it, and when that `began`


class Setting(NamedTuple):
    """What must be the same for two measurements to be compared."""

    prompt_tokens: int
    tokens: int
    concurrency: int


def planned(run: dict[str, Any]) -> list[tuple[str, list[tuple[int | None, Row | None]]]]:
    """Each model of a benchmark with its rows, one a concurrency, None where it is yet to be measured. A model that did not
    answer has a single row, with the reason in it."""
    job, found = run["spec"]["job"], {(row["model"], row["concurrency"]): row for row in run["speed"]}
    return [
        (model, [(None, found[model, None])])
        if (model, None) in found
        else (model, [(many, found.get((model, many))) for many in job["concurrency"]])
        for model in job["models"]
    ]


def by_concurrency(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The charts of a benchmark: each figure of each model by how many asked at a time."""
    job, found = run["spec"]["job"], {(row["model"], row["concurrency"]): row for row in run["speed"]}

    def value(model: str, many: int, figure: str) -> float | None:
        return found.get((model, many), {}).get(figure)

    return [
        {
            "title": title,
            "labels": [f"{many} at a time" for many in job["concurrency"]],
            "x": list(range(len(job["concurrency"]))),
            "lines": [[value(model, many, figure) for many in job["concurrency"]] for model in job["models"]],
            "names": job["models"],
        }
        for figure, title in FIGURES.items()
    ]


def history(store: Store) -> list[Row]:
    """What the newest benchmarks measured, the newest run first; models that did not answer are left out."""
    rows = []
    for run_id in islice(_benchmarks(store), RUNS):
        told = [Speed.model_validate(event).model_dump() for event in runs.all_events(store, run_id, "speed")]
        last = {(row["model"], row["concurrency"]): row for row in told if row["answered"]}  # of several attempts
        rows += [{**row, "run": run_id, "began": told[0]["time"]} for row in last.values()]
    return rows


def setting(row: Row) -> Setting:
    return Setting(row["prompt_tokens"], row["tokens"], row["concurrency"])


def latest(rows: list[Row]) -> list[tuple[Row, float | None]]:
    """Of rows of one setting, the newest run first: each model's newest, and the share by which its tokens per second, all
    together, are above those of the measurement before it; None without one."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return [(own[0], _gain(own[0], own[1]) if own[1:] else None) for own in found.values()]


def by_date(rows: list[Row], models: list[str]) -> list[dict[str, Any]]:
    """The charts of rows of one setting: each figure of each model by when its run began to measure, in Unix seconds."""
    times = sorted({_moment(row) for row in rows})
    place = {moment: at for at, moment in enumerate(times)}
    charts = []
    for figure, title in FIGURES.items():
        lines: list[list[float | None]] = [[None] * len(times) for _ in models]
        for row in rows:
            lines[models.index(row["model"])][place[_moment(row)]] = row[figure]
        charts.append({"title": title, "labels": None, "x": times, "lines": lines, "names": models})
    return charts


def _benchmarks(store: Store) -> Iterator[str]:
    for run_id in runs.ids(store):
        with contextlib.suppress(NotFound):  # deleted while we look
            if run_view.spec_of(store, run_id)["kind"] == "benchmark":
                yield run_id


def _gain(row: Row, before: Row) -> float:
    return row["tokens_per_second_all"] / before["tokens_per_second_all"] - 1


def _moment(row: Row) -> int:
    return int(datetime.fromisoformat(row["began"]).timestamp())
