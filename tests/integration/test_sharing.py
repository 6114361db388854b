"""One GPU for trainer and inference: the server leaves it while a run needs it, and answers as before afterwards."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from celery import Celery

from shared import queue, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store, write_json
from tests.conftest import BASE, ROOT, environment, free_port, wait_for
from tests.integration.conftest import Served, Worker

GPU = {"uuid": "GPU-made-up"}
RUN = "train-20260101-000000-abcd"
SERVE = """
import sys
from services.inference.__main__ import serve
from shared import settings
from shared.gpus import Glance
serve(settings.load(), Glance(read=lambda: [{"uuid": "GPU-made-up"}]), "127.0.0.1", int(sys.argv[1]))
"""
EXPORT = "house-v1-F16.gguf"


class Trainer:
    """A worker's file as the worker writes it, by hand: its heartbeat goes on until it is killed."""

    def __init__(self, path: Path) -> None:
        self.path, self.alive = path, True
        self.beat = threading.Thread(target=self._beat, daemon=True)

    def works(self, run: str | None, kind: str | None = "train") -> None:
        write_json(self.path, {"busy": run, "kind": kind, "gpus": [GPU]})
        if not self.beat.is_alive():
            self.beat.start()

    def _beat(self) -> None:
        while self.alive:
            os.utime(self.path)
            threading.Event().wait(0.3)

    def kill(self) -> None:
        self.alive = False
        self.beat.join()


@pytest.fixture
def trainer(served: Served) -> Iterator[Trainer]:
    trainer = Trainer(served.store.workers() / "trainer-box.json")
    yield trainer
    trainer.kill()
    trainer.path.unlink(missing_ok=True)


class Shared:
    """The server with the made-up GPU."""

    def __init__(self, url: str) -> None:
        self.url = url

    def health(self) -> dict:
        try:
            answer = httpx.get(f"{self.url}/health", timeout=5)
        except httpx.HTTPError:
            return {"status": "down"}
        return {**answer.json(), "code": answer.status_code}

    def becomes(self, status: str, seconds: float = 60) -> dict:
        return wait_for(lambda: (told := self.health())["status"] == status and told, seconds, f"it is {status}")

    def ask(self, model: str, **more: object) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "When are you open?"}], "temperature": 0}
        return httpx.post(f"{self.url}/v1/chat/completions", json={**body, "max_tokens": 40, **more}, timeout=60)

    def says(self, model: str) -> dict:
        answer = self.ask(model)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]

    def sure(self, model: str) -> float:
        """The log-probability of the token that it finds the likeliest after some words."""
        body = {"model": model, "prompt": "We are open", "max_tokens": 1, "temperature": 0, "logprobs": 1}
        answer = httpx.post(f"{self.url}/v1/completions", json=body, timeout=60).raise_for_status()
        return answer.json()["choices"][0]["logprobs"]["token_logprobs"][0]


@pytest.fixture(scope="module")
def shared(served: Served) -> Iterator[Shared]:
    port, settings = free_port(), served.settings.model_copy(update={"stale_seconds": 2.5})
    command = [sys.executable, "-c", SERVE, str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(settings))
    yield Shared(f"http://127.0.0.1:{port}")
    process.terminate()
    process.wait(30)


def test_it_starts_asleep_wakes_sleeps_and_answers_as_before(shared: Shared, trainer: Trainer) -> None:
    trainer.works(RUN)
    told = shared.becomes("asleep")
    assert (told["code"], told["run"], told["gpus"]) == (200, RUN, [GPU])
    exported = shared.says(EXPORT)

    trainer.works(None, None)
    assert shared.becomes("loading", 15)["code"] == 503
    refused = shared.ask(BASE)
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    shared.becomes("ok")
    before = [shared.says(model) for model in (BASE, "house@v1")]
    assert before[0] != before[1]

    trainer.works(RUN, "export")
    shared.becomes("asleep")
    for asked in ({"model": BASE}, {"model": "house@v1", "fallback": False}, {"model": "house@v1", "logprobs": True}):
        for stream in (False, True):
            refused = shared.ask(**asked, stream=stream)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "30"
            error = refused.json()["error"]
            assert error["code"] == "asleep" and error["message"].startswith(f"The run {RUN} has the GPU now.")
    assert shared.says(EXPORT) == exported == shared.says("house@v1"), "the export answers for its adapter"
    told = shared.ask("house@v1", stream=True).headers
    assert (told["x-tandem-model"], told["x-tandem-backend"]) == (EXPORT, "llama.cpp")
    assert shared.ask("house@v9").status_code == 404
    assert len(httpx.get(f"{shared.url}/v1/models").json()["data"]) == 3

    trainer.works(None, None)
    shared.becomes("ok")
    assert [shared.says(model) for model in (BASE, "house@v1")] == before


def test_an_answer_in_progress_ends_whole_and_no_new_one_begins(shared: Shared, trainer: Trainer) -> None:
    shared.becomes("ok")
    body = {"model": BASE, "prompt": "<|start|>user", "max_tokens": 300, "temperature": 2, "seed": 1, "stream": True}
    body["stream_options"] = {"include_usage": True}
    with httpx.stream("POST", f"{shared.url}/v1/completions", json=body, timeout=60) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(lines)
        trainer.works(RUN)
        shared.becomes("leaving", 10)
        assert shared.ask(BASE).json()["error"]["code"] == "asleep"
        *_, usage, done = lines
    assert done == "data: [DONE]" and json.loads(usage[6:])["usage"]["completion_tokens"] > 1
    shared.becomes("asleep", 5)


def test_a_killed_worker_is_silent_and_it_wakes(shared: Shared, trainer: Trainer) -> None:
    trainer.works(RUN)
    shared.becomes("asleep")
    trainer.kill()
    shared.becomes("ok")
    assert shared.says("house@v1")["content"]


def test_a_fetch_needs_no_gpu(shared: Shared, trainer: Trainer) -> None:
    shared.becomes("ok")
    trainer.works("fetch-20260101-000000-abcd", "fetch")
    threading.Event().wait(2.5)
    assert shared.health()["status"] == "ok"


def test_a_run_and_the_server_take_turns(
    settings: Settings, store: Store, celery: Celery, workshop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real worker, a real run and a real server, all of which nvidia-smi tells of the same GPU."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, GPU-made-up, Card, 100, 1, 2'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    port = free_port()
    settings = settings.model_copy(update={"inference_url": f"http://127.0.0.1:{port}"})
    shared, worker = Shared(settings.inference_url), Worker(settings, tmp_path / "worker.log")
    command = [sys.executable, "-m", "services.inference", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment(settings))
    try:
        shared.becomes("ok")
        before = shared.says(BASE)
        worker.start()
        job = Job(dataset=workshop, recipe="tiny", overrides={"steps": 3}, name="house")
        run_id = queue.submit(settings, celery, "train", job).id
        assert shared.becomes("asleep")["run"] == run_id
        wait_for(lambda: runs.read_status(store, run_id).ended, 120, "the run ends")
        events = list(runs.all_events(store, run_id))
        assert runs.read_status(store, run_id).result == "house@v1"
        assert not [event for event in events if event["type"] == "warning" and "inference" in event["text"]]
        shared.becomes("ok")
        assert shared.says(BASE) == before
        moved = abs(shared.sure("house@v1") - shared.sure(BASE))
        assert moved > 1e-3, "three steps need not change a word, and change more than rounding does"
    finally:
        worker.stop()
        server.terminate()
        server.wait(30)
