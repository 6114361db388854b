"""The real containers: built, started over a data directory of their own, looked into, broken and taken down."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.cli.client import Client, Failure
from shared import runs
from shared.schemas import ENDED, Status
from shared.store import Store
from tests.conftest import ROOT, free_port, wait_for

PROJECT = "tandem-test"
DISK_BYTES = 3 << 30  # of the data directory: a file system of its own, which a test can fill
OWNER = 1000  # who owns what the containers write; not root, who runs the tests
STEPS = 24
QUICK = {"steps": STEPS, "save_every": 4, "evaluate_every": 12, "batch_size": 4}
CONVERSATIONS = ROOT / "demo" / "conversations.jsonl"


class Stack:
    """`docker compose` over compose.yaml and compose.cpu.yaml, with an environment that tests may change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = Store(folder / "data")
        self.key = ""
        self.environment = {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": "compose.yaml:compose.cpu.yaml",
            "UID": str(OWNER),
            "GID": str(OWNER),
            "DATA_DIR": str(folder / "data"),
            "HF_DIR": str(folder / "huggingface"),
            "TLS_DIR": str(folder / "tls"),
            "TANDEM_PORT": str(self.port),
            "TANDEM_PUBLIC_URL": self.url,
            "TANDEM_MIN_FREE_BYTES": "1048576",
        }

    # ---- compose

    def compose(self, *words: str, check: bool = True, **environment: str) -> str:
        """What `docker compose WORDS` says. Raises AssertionError with its words if it fails."""
        given = {**os.environ, **self.environment, **environment}
        done = subprocess.run(
            ["docker", "compose", "--env-file", "/dev/null", *words],
            cwd=ROOT, env=given, capture_output=True, text=True, timeout=1500,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"docker compose {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *words: str, **environment: str) -> None:
        """Start what does not run, or not as it should, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "300", *words, **environment)

    def inside(self, service: str, script: str) -> str:
        """What a Python script says that runs in a service's container."""
        return self.compose("exec", "-T", service, "python", "-c", script)

    def logs(self, service: str) -> str:
        return self.compose("logs", "--no-log-prefix", service)

    def inspect(self, service: str) -> dict[str, Any]:
        container = self.compose("ps", "--all", "--quiet", service).split()[0]
        found = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True)
        return json.loads(found.stdout)[0]

    def healthy(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        return state["Running"] and state["Health"]["Status"] == "healthy"

    def kill(self, service: str, words: str, first: bool = True) -> None:
        """kill -9 a process of a service by words of its command line, as a crash does it: `docker kill` would count as
        asked for, and the container would stay down."""
        container = self.compose("ps", "--quiet", service).strip()
        found = subprocess.run(
            ["docker", "top", container, "-eo", "pid,args"], capture_output=True, text=True, check=True
        )
        pids = [int(line.split()[0]) for line in found.stdout.splitlines()[1:] if words in line and "init" not in line]
        assert pids, f"{words!r} is none of\n{found.stdout}"
        for pid in pids[:1] if first else pids:
            os.kill(pid, signal.SIGKILL)

    # ---- as a client

    @property
    def client(self) -> Client:
        return Client(self.url, key=self.key)

    def browser(self) -> httpx.Client:
        """Somebody without a key."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def sign_in_link(self) -> str:
        """The newest link that init has printed."""
        return re.findall(r"http\S+/sign-in\?token=\S+", self.logs("init"))[-1]

    def train(self, dataset: str, name: str, **overrides: Any) -> str:
        """Queue a training run and return its id."""
        job = {"kind": "train", "dataset": dataset, "recipe": "tiny", "name": name, "overrides": QUICK | overrides}
        return self.client.post("/runs", job)["id"]

    def at_step(self, run_id: str, step: int) -> None:
        wait_for(lambda: self.status(run_id).step >= step, 180, f"{run_id} at step {step}")

    def ended(self, run_id: str, seconds: float = 240) -> Status:
        wait_for(lambda: self.status(run_id).state in ENDED, seconds, f"{run_id} ends")
        return self.status(run_id)

    def status(self, run_id: str) -> Status:
        return runs.read_status(self.store, run_id)

    def metrics(self, run_id: str) -> list[int]:
        """The steps whose loss was told, in order."""
        return [e["step"] for e in runs.all_events(self.store, run_id, "metric") if "loss" in e]

    def outcomes(self, run_id: str) -> list[str]:
        """The states in which the run ended, as its events tell it."""
        return [e["state"] for e in runs.all_events(self.store, run_id, "status") if e["state"] in ENDED]

    def answer(self, model: str, question: str = "When are you open?", **more: Any) -> str:
        """A greedy answer, asked for again while its server is starting."""
        body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 60}

        def asked() -> str | None:
            try:
                answer = self.client.call("POST", "/chat/completions", prefix="/v1", json=body | more)
            except Failure as failure:
                if failure.status in (502, 503, 504):
                    return None
                raise
            return answer["choices"][0]["message"]["content"]

        return wait_for(asked, 120, f"{model} answers")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack on the CPU override, up and healthy; taken down at the end."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("No container engine runs here.")
    folder = ROOT / ".local" / "stack"
    found = Stack(folder)
    data, cache = folder / "data", folder / "huggingface"
    found.compose("down", "--remove-orphans", "--timeout", "5")
    unmount(data)
    for path in (data, cache, folder / "tls"):
        path.mkdir(parents=True, exist_ok=True)
    built = ROOT / ".local" / "hf" / "hub"
    if built.exists() and not (cache / "hub").exists():
        shutil.copytree(built, cache / "hub", symlinks=True)  # the tiny base, which `tiny` would build in a minute
    own = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tandem-test", data]
    if subprocess.run(
        own, capture_output=True
    ).returncode:  # no root: without it the disk is not filled, all else is tested
        shutil.rmtree(data)
        data.mkdir()
    try:
        found.compose("build")
        found.up()
        found.key = first_key(found)
        yield found
    finally:
        print(found.compose("ps", "--all", check=False))
        print(found.compose("logs", "--tail", "40", check=False))
        found.compose("down", "--remove-orphans", "--timeout", "20", check=False)
        unmount(data)


def first_key(stack: Stack) -> str:
    """A key, made as a person makes the first one: with the link that init prints."""
    with stack.browser() as person:
        assert person.get(stack.sign_in_link()).status_code == 303
        made = person.post("/api/keys", json={"name": "tests"}, headers={"Sec-Fetch-Site": "same-origin"})
        assert made.status_code == 201, made.text
        return made.json()["key"]


def unmount(folder: Path) -> None:
    while os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def dataset(stack: Stack) -> str:
    """The demo's conversations, uploaded."""
    made = stack.client.upload("/datasets", CONVERSATIONS, lambda _: None, filename="demo.jsonl", name="workshop")
    return made["reference"]


@pytest.fixture(scope="session")
def adapter(stack: Stack, dataset: str) -> str:
    """An adapter that has been trained and published."""
    run_id = stack.train(dataset, "house")
    assert stack.ended(run_id).state == "succeeded", stack.status(run_id)
    return stack.status(run_id).result or ""
