"""What nvidia-smi says of GPUs, from a program of that name that says it; samples as columns for charts."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from services.dashboard import health
from services.dashboard.views import history
from services.inference.app import create_app
from shared.gpus import Glance, gpus
from tests.conftest import wait_for

GIB = 1 << 30


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`nvidia_smi("…")` puts a program into PATH that does that."""

    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def test_each_line_is_a_gpu_in_bytes_and_percent(nvidia_smi) -> None:
    nvidia_smi("echo '0, GPU-1, Card A, 81920, 1024, 37'; echo '1, GPU-2, Card B, [N/A], [N/A], [N/A]'")
    first, second = gpus()
    assert first == {
        "index": 0, "uuid": "GPU-1", "name": "Card A",
        "memory_total": 80 * GIB, "memory_used": GIB, "use_percent": 37,
    }  # fmt: skip
    assert (second["name"], second["memory_total"], second["use_percent"]) == ("Card B", None, None)


def test_without_the_program_or_when_it_fails_there_is_no_gpu(nvidia_smi, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi("echo 'Failed to initialize NVML'; exit 9")
    assert gpus() == []
    monkeypatch.setenv("PATH", "/nonexistent")
    assert gpus() == []


def test_a_glance_never_waits_for_a_slow_program(nvidia_smi) -> None:
    nvidia_smi("sleep 0.5; echo '0, GPU-1, Card, 100, 1, 2'")
    glance = Glance(seconds=60)
    began = time.monotonic()
    assert glance.latest() == []
    assert time.monotonic() - began < 0.2
    assert wait_for(glance.latest, 5, "the GPU is seen")[0]["uuid"] == "GPU-1"


def test_the_inference_servers_health_carries_its_gpus_and_waits_for_none(nvidia_smi, settings) -> None:
    nvidia_smi("sleep 0.5; echo '0, GPU-1, Card, 100, 1, 2'")
    engine = SimpleNamespace(name="stub", told=lambda: {"status": "ok"})
    client = TestClient(create_app(settings, engine, None, Glance()))
    began = time.monotonic()
    assert client.get("/health").json()["gpus"] == []
    assert time.monotonic() - began < 0.4
    assert wait_for(lambda: client.get("/health").json()["gpus"], 5, "the GPU is seen")[0]["uuid"] == "GPU-1"


def test_a_gpu_that_two_services_see_is_one() -> None:
    seen = [
        ("trainer", {"uuid": "a", "index": 0}),
        ("inference", {"uuid": "b", "index": 0}),
        ("inference", {"uuid": "a"}),
    ]
    assert [(gpu["uuid"], gpu["held_by"]) for gpu in health._merged(seen)] == [
        ("a", ["trainer", "inference"]),
        ("b", ["inference"]),
    ]


def sample(ago: float, **values) -> dict:
    return {"time": time.time() - ago, "free": 5, "memory_used": 3, "load": 1.0, "gpus": [], **values}


@pytest.mark.parametrize("seconds", [60, 3600, 86400])
def test_history_is_thinned_to_even_columns(seconds: int) -> None:
    found = history.columns((sample(ago) for ago in range(0, seconds, 10)), seconds, [])
    assert len(found["time"]) <= 600
    assert len({len(found[name]) for name in ("time", "free", "memory_used", "load")}) == 1
    assert set(found["free"]) == {5}  # no gap where there is none
    assert found["time"] == sorted(found["time"])


def test_what_was_not_noted_is_a_gap_and_a_span_is_its_mean() -> None:
    found = history.columns([sample(1, load=1.0), sample(2, load=3.0), sample(3000)], 3600, [])
    assert found["load"][-1] == 2.0
    assert found["load"].count(None) == len(found["load"]) - 2


def test_a_gpu_that_is_gone_is_still_in_the_history() -> None:
    now = {"uuid": "b", "name": "New", "memory_total": 8, "held_by": ["trainer"]}
    then = {"uuid": "a", "memory_used": 4, "use_percent": 50}
    found = history.columns([sample(5, gpus=[then])], 60, [now])["gpus"]
    assert [(gpu["uuid"], gpu["name"]) for gpu in found] == [("b", "New"), ("a", None)]
    assert found[1]["use_percent"][-1] == 50 and set(found[0]["use_percent"]) == {None}
