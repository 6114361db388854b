"""What real services tell: of a run in lines that name it and in metrics, of answers over HTTP, of a client that leaves."""

import json

import httpx
import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families as parse

from shared import queue, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import BASE, free_port, wait_for
from tests.integration.conftest import Served, Worker, ended


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"metrics_port": free_port()})


def values(url: str) -> dict[str, float]:
    """The samples without labels, and of those with labels the ones that are not 0."""
    text = httpx.get(f"{url}/metrics", timeout=10).text
    samples = [sample for family in parse(text) for sample in family.samples]
    return {" ".join([s.name, *s.labels.values()]): s.value for s in samples if s.value or not s.labels}


def test_a_run_is_followed_in_metrics_and_named_in_the_log(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    job = Job(dataset=workshop, recipe="tiny", name="house", overrides={"steps": 400, "save_every": 400})
    run_id = queue.submit(settings, celery, "train", job, request_id="asked-1").id
    wait_for(lambda: runs.read_status(store, run_id).step >= 3, 90, "step 3")
    url = f"http://127.0.0.1:{settings.metrics_port}"
    seen = values(url)
    assert seen["tandem_run_in_hand"] == 1 and seen["tandem_attempts_total train"] == 1
    assert seen["tandem_training_step"] >= 2 and seen["tandem_training_steps"] == 400
    assert 0 < seen["tandem_training_loss"] < 20 and 0 < seen["tandem_training_step_seconds"] < 10
    assert seen["tandem_training_tokens_per_second"] > 0 and "tandem_training_grad_norm" in seen
    runs.request_cancel(store, run_id)
    ended(store, run_id, 60)
    wait_for(lambda: values(url)["tandem_run_in_hand"] == 0, 10, "nothing is in hand")
    assert values(url)["tandem_runs_finished_total train cancelled"] == 1

    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    assert all(line["service"] == "trainer" and line["level"] for line in lines)
    about = [line for line in lines if "run" in line]
    assert {(line["run"], line["request_id"]) for line in about} == {(run_id, "asked-1")}
    assert any("attempt 1" in line["message"] for line in about) and any(
        "received" in line["message"] for line in about
    )


def test_answers_of_base_adapter_and_export_are_counted_apart(served: Served) -> None:
    before = values(served.url)
    for model in (BASE, "house@v1", "house-v1-F16.gguf", "nobody@v1"):
        body = {"model": model, "prompt": "<|start|>user", "max_tokens": 4, "temperature": 0}
        httpx.post(f"{served.url}/v1/completions", json=body, timeout=30)
    after = values(served.url)
    for outcome in ("base ok", "adapter ok", "export ok", "none refused"):
        name = f"tandem_requests_total {outcome}"
        assert after[name] - before.get(name, 0) == 1, name
    name = "tandem_generation_tokens_total export"
    assert 0 < after[name] - before.get(name, 0) <= 4
    assert after["tandem_engine_ready"] == 1
    assert values(served.gguf_url)["llamacpp:tokens_predicted_total"] > 0


def test_a_client_that_leaves_has_cancelled(served: Served) -> None:
    name = "tandem_requests_total base cancelled"
    before = values(served.url).get(name, 0)
    body = {"model": BASE, "prompt": "<|start|>user", "max_tokens": 900, "temperature": 2, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=30) as answer:
        lines = answer.iter_lines()  # held: a forgotten iterator closes the connection
        next(lines)
        assert values(served.url)["tandem_requests_running"] == 1
    wait_for(lambda: values(served.url).get(name, 0) == before + 1, 10, "it is counted as cancelled")
    assert values(served.url)["tandem_requests_running"] == 0
