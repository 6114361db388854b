"""A real Celery worker, and data sets that real runs are made of."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from celery import Celery

from shared import queue, runs
from shared.datasets import ingest
from shared.queue import celery_app
from shared.schemas import ENDED, Job, Kind, Status
from shared.settings import Settings
from shared.store import Store, publish
from tests.conftest import BASE, ROOT, environment, free_port, wait_for


class Worker:
    """The trainer's worker as a process that can be killed and started again."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings, self.log = settings, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-q",
            "-A",
            "services.trainer.app",
            "worker",
            "-c",
            "1",
            "--loglevel",
            "INFO",
        ]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment(self.settings), stdout=output, stderr=output
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()


@pytest.fixture
def celery(settings: Settings) -> Iterator[Celery]:
    with celery_app(settings) as app:
        yield app


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[Worker]:
    running = Worker(settings, tmp_path / "worker.log")
    running.start()
    yield running
    running.stop()
    print(running.log.read_text(errors="replace")[-4000:])


@pytest.fixture
def workshop(store: Store) -> str:
    """The demo's conversations, as a published data set."""
    return published(store, ROOT / "demo" / "conversations.jsonl")


@pytest.fixture
def conversations(store: Store, tmp_path: Path) -> str:
    """Some of the demo's conversations, as a published data set."""
    source = tmp_path / "some.jsonl"
    source.write_text("".join((ROOT / "demo" / "conversations.jsonl").read_text().splitlines(True)[:40]))
    return published(store, source)


def published(store: Store, source: Path) -> str:
    """A file of conversations as the data set `workshop`."""
    with store.staging(store.datasets()) as staged:
        card = ingest(source, source.name, staged / "data", count_tokens=None, name="workshop")
        publish(staged / "data", store.datasets() / "workshop" / card.version)
    return f"workshop@{card.version}"


@dataclass(frozen=True)
class Served:
    """Inference and the GGUF server over a data directory with one adapter and its export."""

    settings: Settings
    store: Store
    url: str
    gguf_url: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, hf_home: Path) -> Iterator[Served]:
    """Train `house@v1`, export it as F16, and serve both: the slow part of several tests, done once."""
    folder = tmp_path_factory.mktemp("served")
    port, gguf_port = free_port(), free_port()
    settings = Settings(
        data=folder / "data",
        hf_home=hf_home,
        redis_url="redis://127.0.0.1:1/0",
        base_model=BASE,
        llama_url=f"http://127.0.0.1:{gguf_port}",
        min_free_bytes=0,
        context_tokens=1024,
    )
    store = Store(settings.data)
    published(store, ROOT / "demo" / "conversations.jsonl")
    by_hand(settings, "train", Job(dataset="workshop", recipe="tiny", name="house", overrides={"steps": 20}))
    services = [
        subprocess.Popen(
            [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(number)],
            cwd=ROOT,
            env=environment(settings),
        )
        for module, number in (("services.inference", port), ("services.llama", gguf_port))
    ]
    by_hand(settings, "export", Job(adapter="house@v1", encoding="F16"))
    found = Served(settings, store, f"http://127.0.0.1:{port}", settings.llama_url)
    wait_for(lambda: answers(f"{found.url}/health"), 90, "inference answers")
    wait_for(
        lambda: "house-v1-F16" in answers(f"{found.gguf_url}/v1/models"), 60, "the GGUF server has seen the export"
    )
    yield found
    for service in services:
        service.terminate()
    for service in services:
        service.wait(30)


def ended(store: Store, run_id: str, seconds: float = 120) -> Status:
    """The status of a run once it has ended."""
    wait_for(lambda: runs.read_status(store, run_id).state in ENDED, seconds, f"{run_id} ends")
    return runs.read_status(store, run_id)


def by_hand(settings: Settings, kind: Kind, job: Job) -> str:
    """Run a job's child process without a queue, as a person may; returns what it prints."""
    store = Store(settings.data)
    job, recipe = queue.prepare(settings, store, kind, job)
    spec = runs.create(store, runs.new_id(kind), kind, job, recipe)
    done = subprocess.run(
        [sys.executable, "-m", f"services.trainer.{kind}", spec.id],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]
    return done.stdout.decode()


def answers(url: str) -> str:
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.get(url, timeout=2)
        return answer.text if answer.status_code == 200 else ""
    return ""
