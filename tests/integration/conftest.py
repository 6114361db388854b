"""A real Celery worker, and data sets that real runs are made of."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from shared.datasets import ingest
from shared.queue import celery_app
from shared.settings import Settings
from shared.store import Store, publish
from tests.conftest import ROOT, environment


class Worker:
    """The trainer's worker as a process that can be killed and started again."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings, self.log = settings, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "services.trainer.app", "worker", "-c", "1", "--loglevel", "INFO"]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment(self.settings), stdout=output, stderr=output)

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
    source = ROOT / "demo" / "conversations.jsonl"
    with store.staging(store.datasets()) as staged:
        card = ingest(source, source.name, staged / "data", count_tokens=None, name="workshop")
        publish(staged / "data", store.datasets() / "workshop" / card.version)
    return f"workshop@{card.version}"
