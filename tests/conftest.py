"""What tests share: the tiny base in a cache, a data directory of one's own, a real Redis, a real worker."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.harmony import Encoder
from shared.settings import Settings
from shared.store import Store

ROOT = Path(__file__).resolve().parents[1]
BASE = "tandem/tiny-gpt-oss"


@pytest.fixture(scope="session")
def hf_home() -> Path:
    """A Hugging Face cache that holds the tiny base; the demo's own is used, and made if it is not there."""
    folder = ROOT / ".local" / "hf"
    command = [sys.executable, "-m", "services.trainer.tiny"]
    subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def harmony_tokenizer_dir(hf_home: Path) -> Path:
    """The folder of the tiny base, whose tokenizer is the real one."""
    from shared import hub

    return hub.snapshot(BASE, "main", hf_home)


@pytest.fixture(scope="session")
def encoder(harmony_tokenizer_dir: Path) -> Encoder:
    return Encoder(harmony_tokenizer_dir)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of the test session's own."""
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    program = shutil.which("redis-server", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or "redis-server"
    process = subprocess.Popen(
        [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            "--loglevel",
            "warning",
        ],
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: _connects(port), 10, "redis answers")
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(10)


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, hf_home: Path) -> Settings:
    """Settings over a data directory and a queue of the test's own; a silent worker is given up after two seconds."""
    (tmp_path / "data").mkdir()
    return Settings(
        data=tmp_path / "data",
        hf_home=hf_home,
        redis_url=redis_url,
        base_model=BASE,
        heartbeat_seconds=0.5,
        stale_seconds=2.5,
        min_free_bytes=0,
        queue=f"test-{os.urandom(4).hex()}",
    )


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.data)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds: float, what: str):
    """The first true value of `condition()`; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {what}")


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a service under test."""
    own = {
        name.upper(): str(value)
        for name, value in settings.model_dump().items()
        if name not in ("hf_home", "redis_url")
    }
    return {
        **os.environ,
        **{f"TANDEM_{name}": value for name, value in own.items()},
        "HF_HOME": str(settings.hf_home),
        "REDIS_URL": settings.redis_url,
        "HF_HUB_OFFLINE": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_AUTO_INSTALL": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
