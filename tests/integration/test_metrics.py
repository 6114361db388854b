"""A real worker tells of a real run: in lines that name the run and the request, and in its metrics."""

import json

import httpx
import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families as parse

from shared import queue, runs
from shared.schemas import ENDED, Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import free_port, wait_for
from tests.integration.conftest import Worker


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"metrics_port": free_port()})


def values(settings: Settings) -> dict[str, float]:
    """The samples without labels, and of those with labels the ones that are not 0."""
    text = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=10).text
    samples = [sample for family in parse(text) for sample in family.samples]
    return {" ".join([s.name, *s.labels.values()]): s.value for s in samples if s.value or not s.labels}


def test_a_run_is_followed_in_metrics_and_named_in_the_log(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    job = Job(dataset=workshop, recipe="tiny", name="house", overrides={"steps": 400, "save_every": 400})
    run_id = queue.submit(settings, celery, "train", job, request_id="asked-1").id
    wait_for(lambda: runs.read_status(store, run_id).step >= 3, 90, "step 3")
    seen = values(settings)
    assert seen["tandem_run_in_hand"] == 1 and seen["tandem_attempts_total train"] == 1
    assert seen["tandem_training_step"] >= 2 and seen["tandem_training_steps"] == 400
    assert 0 < seen["tandem_training_loss"] < 20 and 0 < seen["tandem_training_step_seconds"] < 10
    assert seen["tandem_training_tokens_per_second"] > 0 and "tandem_training_grad_norm" in seen
    runs.request_cancel(store, run_id)
    wait_for(lambda: runs.read_status(store, run_id).state in ENDED, 60, "the run ends")
    wait_for(lambda: values(settings)["tandem_run_in_hand"] == 0, 10, "nothing is in hand")
    assert values(settings)["tandem_runs_finished_total train cancelled"] == 1

    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    assert all(line["service"] == "trainer" and line["level"] for line in lines)
    about = [line for line in lines if "run" in line]
    assert {(line["run"], line["request_id"]) for line in about} == {(run_id, "asked-1")}
    assert any("attempt 1" in line["message"] for line in about) and any(
        "received" in line["message"] for line in about
    )
