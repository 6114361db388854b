"""What the dashboard, the trainer and the GGUF server expose."""

import math
import time

import httpx
import pytest
from celery.worker import state as worker_state
from prometheus_client.parser import text_string_to_metric_families

from services.dashboard import create_app, health
from services.llama.__main__ import Server
from services.trainer.metrics import Training
from shared import runs
from shared.metrics import exposition, gpus
from shared.queue import celery_app
from shared.recipes import resolve
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store, write_json
from tests.conftest import free_port
from tests.unit.exposition import Samples, parse

GPU = {"index": 0, "uuid": "GPU-1", "name": "Card", "memory_total": 100, "memory_used": 96, "use_percent": 50}


# ---- the dashboard


@pytest.fixture
def settings(settings: Settings) -> Settings:
    away = "http://127.0.0.1:1"
    return settings.model_copy(update={"inference_url": away, "llama_url": away})


def dashboard(settings: Settings) -> str:
    client = create_app(settings, Store(settings.data), celery_app(settings)).test_client()
    client.open("/api/runs/some-name?token=secret", method="WEIRD")
    return client.get("/metrics").text


def test_the_dashboard_tells_of_runs_queue_services_and_disks(settings: Settings, store: Store) -> None:
    for run_id, state in (("train-1", "succeeded"), ("train-2", "running"), ("train-3", "queued")):
        runs.create(store, run_id, "train", Job(dataset="a@0"))
        runs.update(store, run_id, state=state, **({"step": 3, "steps": 9, "loss": 1.5} if state == "running" else {}))
    runs.append_event(store, "train-2", "metric", step=3, loss=1.5, tokens_per_second=321.0)
    write_json(store.workers() / "trainer-box.json", {"since": None, "gpus": [GPU], "busy": "train-2"})
    found = parse(dashboard(settings))
    assert found["tandem_runs"] == {
        ("queued",): 1, ("running",): 1, ("succeeded",): 1, ("failed",): 0, ("cancelled",): 0
    }  # fmt: skip
    running = {name: found[f"tandem_run_{name}"][()] for name in ("step", "steps", "loss", "tokens_per_second")}
    assert running == {"step": 3, "steps": 9, "loss": 1.5, "tokens_per_second": 321}
    assert 0 <= found["tandem_run_silence_seconds"][()] < 30 > found["tandem_worker_heartbeat_age_seconds"][()]
    assert found["tandem_queue_messages"] == {(): 0}
    assert found["tandem_service_up"] == {
        ("dashboard",): 1, ("redis",): 1, ("trainer",): 1, ("inference",): 0, ("llama",): 0
    }  # fmt: skip
    assert found["tandem_gpu_memory_used_bytes"] == {("trainer", "GPU-1"): 96}
    assert found["tandem_gpu_utilization_ratio"] == {("trainer", "GPU-1"): 0.5}
    assert 0 < found["tandem_disk_free_bytes"]["data",] < found["tandem_disk_total_bytes"]["data",]


def test_with_redis_away_the_queue_is_unknown_and_not_empty(settings: Settings) -> None:
    found = parse(dashboard(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})))
    assert found["tandem_queue_messages"] == {} and found["tandem_service_up"]["redis",] == 0
    assert found["tandem_run_step"] == found["tandem_worker_heartbeat_age_seconds"] == {}


def test_requests_are_counted_by_route_and_never_by_what_was_asked_for(settings: Settings) -> None:
    text = dashboard(settings)
    assert parse(text)["tandem_http_requests_total"] == {("other", "none", "4xx"): 1}
    assert "some-name" not in text and "secret" not in text


def test_a_scrape_costs_little_and_walks_no_disk(settings: Settings, store: Store, monkeypatch) -> None:
    monkeypatch.setattr(health, "disk_by_kind", lambda *_: pytest.fail("walked the disk"))
    monkeypatch.setattr("os.fsync", lambda _: None)
    for number in range(300):
        runs.create(store, f"train-{number}", "train", Job(dataset="a@0"))
    app = create_app(settings, store, celery_app(settings))
    watch = app.extensions["tandem"].watch
    seen = watch.latest()
    monkeypatch.setattr(watch, "latest", lambda: seen)  # as its thread would have left it
    client = app.test_client()
    client.get("/metrics")
    took = []
    for _ in range(5):
        began = time.perf_counter()
        client.get("/metrics")
        took.append(time.perf_counter() - began)
    assert min(took) < 0.03


# ---- the trainer


def told(follower: Training) -> Samples:
    return parse(exposition(follower.collect()).decode())


@pytest.fixture
def follower(store: Store) -> Training:
    return Training(store)


def begin(store: Store, follower: Training, run_id: str = "train-1", attempt: int = 1) -> None:
    if attempt == 1:
        runs.create(store, run_id, "train", Job(dataset="a@0", recipe="tiny"), resolve("tiny"))
    follower.received(run_id)
    runs.append_event(store, run_id, "status", state="running", attempt=attempt, worker="box:1")
    runs.append_event(store, run_id, "status", state="running", step=0, steps=9, attempt=attempt)


def test_the_run_in_hand_is_followed_and_its_end_counted(store: Store, follower: Training) -> None:
    begin(store, follower)
    for step in (1, 2):
        runs.append_event(store, "train-1", "metric", step=step, loss=3.0 - step, learning_rate=1e-4, grad_norm=0.5)
        time.sleep(0.02)
    found = told(follower)
    names = ("step", "steps", "loss", "learning_rate", "grad_norm")
    assert [found[f"tandem_training_{name}"][()] for name in names] == [2, 9, 1.0, 1e-4, 0.5]
    assert 0.01 < found["tandem_training_step_seconds"][()] < 1
    assert found["tandem_training_tokens_per_second"] == {}, "nobody told them"
    runs.finish(store, "train-1", "succeeded", result="a@v1")
    found = told(follower)
    assert found["tandem_runs_finished_total"]["train", "succeeded"] == 1
    assert found["tandem_attempts_total"]["train",] == 1 and found["tandem_run_in_hand"] == {(): 0}
    assert told(follower)["tandem_runs_finished_total"]["train", "succeeded"] == 1, "counted once"


def test_a_run_that_is_resumed_or_told_of_twice_counts_only_what_is_new(store: Store, follower: Training) -> None:
    begin(store, follower)
    runs.finish(store, "train-1", "failed", "A reason.")
    runs.resume(store, "train-1")
    begin(store, follower, attempt=2)
    runs.finish(store, "train-1", "cancelled", "Asked to.")
    follower.received("train-1")
    counted = told(follower)
    ends = {key: value for key, value in counted["tandem_runs_finished_total"].items() if value}
    assert ends == {("train", "failed"): 1, ("train", "cancelled"): 1}
    assert counted["tandem_attempts_total"]["train",] == 2


def test_a_loss_that_is_not_a_number_is_seen_until_the_next_run(store: Store, follower: Training) -> None:
    begin(store, follower)
    runs.append_event(store, "train-1", "metric", step=1, loss=2.0)
    runs.append_event(store, "train-1", "warning", kind="not_finite", text="The loss is nan at step 2.", step=2)
    runs.finish(store, "train-1", "failed", "The loss is nan at step 2.")
    found = told(follower)
    assert math.isnan(found["tandem_training_loss"][()]) and found["tandem_training_step"][()] == 2
    begin(store, follower, "train-2")
    assert told(follower)["tandem_training_loss"] == {}


def test_a_message_about_a_run_that_is_not_on_disk_does_no_harm(follower: Training) -> None:
    follower.received("not-there")
    assert told(follower)["tandem_training_step"] == {}


def test_the_worker_says_whether_a_run_is_in_hand(follower: Training, monkeypatch) -> None:
    monkeypatch.setattr(worker_state, "active_requests", {object()})
    assert told(follower)["tandem_run_in_hand"] == {(): 1}


# ---- llama.cpp, the GPUs


def test_with_nothing_to_serve_the_gguf_server_has_a_valid_exposition(settings: Settings) -> None:
    server = Server(settings, "127.0.0.1", free_port())
    server.serve(None)
    try:
        answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics")
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert list(text_string_to_metric_families(answer.text)) == []
    finally:
        server.stop()


def test_what_a_gpu_does_not_tell_has_no_sample() -> None:
    families = list(gpus([("trainer", {**GPU, "use_percent": None, "memory_total": None})]))
    assert [len(family.samples) for family in families] == [1, 0, 0]
