"""A benchmark from the job that is asked for to the page that shows it, over the tiny model's real servers."""

import re
import time
from typing import Any

import pytest

from services.dashboard.views import speed_view
from shared import registry, runs
from shared.schemas import Job
from shared.settings import Settings
from tests.conftest import BASE
from tests.integration.api import Api
from tests.integration.conftest import Served, by_hand

HTML = {"headers": {"Accept": "text/html"}}


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def ask(api: Api, status: int = 201, **job: Any) -> Any:
    return api("POST", "/api/runs", status, json={"kind": "benchmark", **job}).json


def text(api: Api, path: str) -> str:
    """A page's text, white space as single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", api("GET", path, 200, **HTML).text))


def measured(api: Api, run_id: str, at_a_time: int, rate: float, **more: Any) -> None:
    """A benchmark that has ended with one row."""
    job = Job(models=["chats@v1"], concurrency=[at_a_time], tokens=128, prompt_tokens=128)
    runs.create(api.store, run_id, "benchmark", job)
    row = {"model": "chats@v1", "prompt_tokens": 128, "tokens": 128, "concurrency": at_a_time, "answered": 8}
    row |= {"first_token": 0.05, "first_token_p95": 0.08, "tokens_per_second": rate}
    runs.append_event(api.store, run_id, "speed", **row, tokens_per_second_all=rate, loading=1.5, **more)
    runs.finish(api.store, run_id, "succeeded", result=f"{rate:.0f} tokens a second at most (chats@v1)")


def test_by_default_one_of_each_that_answers_is_measured(api: Api) -> None:
    api.adapter()
    newest, export = api.adapter(), api.export()
    assert ask(api)["models"] == [BASE, newest, export]
    registry.point_alias(api.store, "production", "chats@v1")
    asked = ask(api)
    assert asked["models"] == [BASE, "chats@v1", export]
    job = asked["spec"]["job"]
    assert (job["concurrency"], job["tokens"], job["prompt_tokens"]) == ([1, 4, 16], 128, 128)


def test_names_are_resolved_and_counted_once(api: Api) -> None:
    registry.point_alias(api.store, "production", api.adapter())
    asked = ask(api, models=["production", "base", "chats@v1"], concurrency=[8, 2, 8])
    assert asked["models"] == ["chats@v1", BASE] and asked["spec"]["job"]["concurrency"] == [2, 8]


@pytest.mark.parametrize(
    ("job", "status", "says"),
    [
        ({"models": ["nobody@v1"]}, 404, "nobody@v1"),
        ({"models": []}, 422, "models"),
        ({"concurrency": [0]}, 422, "concurrency"),
        ({"tokens": 1}, 422, "tokens"),
        ({"prompt_tokens": 8000, "tokens": 500}, 400, "8,192"),
        ({"models": ["chats-v1-LoRA.gguf"]}, 400, "Measure its adapter chats@v1"),
        ({"recipe": "tiny"}, 400, "no recipe"),
    ],
)
def test_what_cannot_be_measured_is_refused(api: Api, job: dict[str, Any], status: int, says: str) -> None:
    api.export("chats-v1-LoRA.gguf", encoding="LoRA")
    assert says in ask(api, status, **job)["error"]["message"]


def test_speed_compares_what_was_measured_at_the_same_setting(api: Api) -> None:
    assert "Nothing has been measured yet" in text(api, "/runs/speed")
    measured(api, "benchmark-1", 1, 100.0)
    measured(api, "benchmark-2", 16, 400.0)
    measured(api, "benchmark-3", 1, 120.0)
    page = text(api, "/runs/speed")
    assert "chats@v1 50 ms 80 ms 120 120 +20 %" in page
    assert "chats@v1 50 ms 80 ms 400 400 –" in text(api, "/runs/speed?at=16")
    assert "Speed of chats@v1" in text(api, "/runs?kind=benchmark&q=chats")


def test_models_of_one_run_stand_at_one_moment_of_the_curves_over_time(api: Api) -> None:
    measured(api, "benchmark-1", 1, 100.0)
    base = {"model": BASE, "prompt_tokens": 128, "tokens": 128, "concurrency": 1, "answered": 8}
    time.sleep(1.1)  # the moment is in whole seconds
    runs.append_event(api.store, "benchmark-1", "speed", **base, tokens_per_second_all=90.0)
    rows = speed_view.history(api.store)
    [chart, *_] = speed_view.by_date(rows, ["chats@v1", BASE])
    assert len(chart["x"]) == 1 and chart["lines"] == [[100.0], [90.0]]


def test_the_page_of_a_benchmark_shows_what_is_there_and_what_is_to_come(api: Api) -> None:
    run_id = ask(api, models=["base"], concurrency=[1, 4])["id"]
    runs.update(api.store, run_id, state="running", step=1, steps=2)
    row = {"model": BASE, "prompt_tokens": 128, "tokens": 128, "concurrency": 1, "answered": 6, "errors": 2}
    row |= {"first_token": 0.05, "tokens_per_second": 80.0, "tokens_per_second_all": 70.0}
    runs.append_event(api.store, run_id, "speed", **row, error="It broke off.", loading=2.5, engine="unsloth")
    page = text(api, f"/runs/{run_id}")
    assert "1 50 ms – 80.0 70.0 " in page and "2 of 8 failed: It broke off." in page
    assert "4 being measured" in page and "It began after 2.50 s" in page
    assert "answers of 128, the likeliest" in page
    runs.append_event(api.store, run_id, "status", state="running", attempt=2)
    assert api("GET", f"/api/runs/{run_id}", 200).json["speed"] == []


def test_base_adapter_and_export_are_measured_where_they_are_served(served: Served) -> None:
    models = [BASE, "house@v1", "house-v1-F16.gguf"]
    job = Job(models=models, concurrency=[1, 2], tokens=8, prompt_tokens=48)
    by_hand(served.settings.model_copy(update={"inference_url": served.url}), "benchmark", job)
    run_id = next(run for run in runs.ids(served.store) if run.startswith("benchmark-"))
    rows = list(runs.all_events(served.store, run_id, "speed"))
    assert [(row["model"], row["concurrency"]) for row in rows] == [(name, n) for name in models for n in (1, 2)]
    for row in rows:
        assert row["answered"] == 8 and row["errors"] == 0
        assert 0 < row["first_token"] <= row["first_token_p95"] and row["tokens_per_second_all"] > 0
    assert rows[2]["sha256"] == registry.adapter_card(served.store, "house@v1").sha256
