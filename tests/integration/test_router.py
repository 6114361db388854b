"""Two real inference servers behind the router, one of which is killed: what had begun breaks off, all else is answered."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.settings import Settings
from tests.conftest import BASE, ROOT, environment, free_port, wait_for

LONG = {
    "model": BASE,
    "prompt": "<|start|>user",
    "max_tokens": 900,
    "temperature": 0,
    "ignore_eos": True,
    "stream": True,
}
SHORT = {"model": BASE, "prompt": "<|start|>user", "max_tokens": 4, "temperature": 0}


class Pair:
    """The router and, by the name that it gives them, the two servers behind it."""

    def __init__(self, settings: Settings) -> None:
        ports, port = (free_port(), free_port()), free_port()
        urls = " ".join(f"http://127.0.0.1:{number}" for number in ports)
        settings = settings.model_copy(update={"inference_replicas": urls, "response_cache_bytes": 1 << 20})
        self.url = f"http://127.0.0.1:{port}"
        self.router = self._start(settings, "services.inference.router", port)
        self.servers = {f"127.0.0.1:{number}": self._start(settings, "services.inference", number) for number in ports}

    def _start(self, settings: Settings, module: str, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port)]
        return subprocess.Popen(command, cwd=ROOT, env=environment(settings))

    def states(self) -> list[str]:
        try:
            return [one["status"] for one in httpx.get(f"{self.url}/health", timeout=5).json()["replicas"]]
        except httpx.HTTPError:
            return []

    def ask(self, **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/completions", json={**SHORT, **more}, timeout=60)

    def chat(self, **more: Any) -> httpx.Response:
        body = {"model": BASE, "messages": [{"role": "user", "content": "When are you open?"}], "max_tokens": 60}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json={**body, "return_token_ids": True, **more}, timeout=60
        )

    def stop(self) -> None:
        for process in (self.router, *self.servers.values()):
            process.terminate()
        for process in (self.router, *self.servers.values()):
            process.wait(40)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, hf_home: Path) -> Iterator[Pair]:
    data = tmp_path_factory.mktemp("routed")
    settings = Settings(
        data=data, hf_home=hf_home, redis_url="redis://127.0.0.1:1/0", base_model=BASE, context_tokens=1024
    )
    found = Pair(settings)
    wait_for(lambda: found.states() == ["ok", "ok"], 150, "both servers are ready")
    yield found
    found.stop()


def test_who_is_busy_is_spared_and_both_say_the_same(pair: Pair) -> None:
    first = pair.ask()
    with httpx.stream("POST", f"{pair.url}/v1/completions", json=LONG, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        other = pair.ask()
    assert answer.headers["X-Tandem-Replica"] == first.headers["X-Tandem-Replica"] != other.headers["X-Tandem-Replica"]
    assert other.json()["choices"] == first.json()["choices"]
    assert other.headers["X-Tandem-SHA256"] == first.headers["X-Tandem-SHA256"]
    in_hand = lambda: [one["requests"] for one in httpx.get(f"{pair.url}/health").json()["replicas"]]  # noqa: E731
    wait_for(lambda: in_hand() == [0, 0], 10, "the one who left is forgotten")


@pytest.mark.parametrize("drawn", [{"temperature": 0}, {"temperature": 2, "seed": 3}], ids=["greedy", "seed"])
def test_an_answer_is_given_once_more_token_for_token(pair: Pair, drawn: dict[str, Any]) -> None:
    first, again, stream = pair.chat(**drawn), pair.chat(**drawn), pair.chat(**drawn, stream=True)
    assert [answer.headers.get("X-Tandem-Cache") for answer in (first, again, stream)] == [None, "hit", "hit"]
    assert again.json()["choices"] == first.json()["choices"] and again.json()["usage"] == first.json()["usage"]
    chunks = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
    assert [id_ for chunk in chunks for id_ in chunk["choices"][0]["token_ids"]] == first.json()["choices"][0][
        "token_ids"
    ]
    assert len(first.json()["choices"][0]["token_ids"]) > 2


def test_a_killed_server_costs_what_it_had_begun_and_no_other_request(pair: Pair) -> None:
    came: Counter[tuple[int, str]] = Counter()
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            answer = pair.ask()
            came[answer.status_code, answer.headers.get("X-Tandem-Replica", "")] += 1

    with httpx.stream("POST", f"{pair.url}/v1/completions", json=LONG, timeout=60) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        killed = answer.headers["X-Tandem-Replica"]
        asking = [threading.Thread(target=ask_on) for _ in range(4)]
        for thread in asking:
            thread.start()
        wait_for(lambda: came[200, killed] >= 2, 30, "the one that is to be killed answers others, too")
        pair.servers[killed].kill()
        *_, told, done = lines
    assert json.loads(told.removeprefix("data: "))["error"]["code"] == "backend_unavailable" and done == "data: [DONE]"
    (left,) = set(pair.servers) - {killed}
    before = came[200, left]
    wait_for(lambda: came[200, left] >= before + 8, 30, "the other one answers")
    over.set()
    for thread in asking:
        thread.join(60)
    assert {status for status, _ in came} == {200}, came
    assert sorted(pair.states()) == ["away", "ok"]
