"""A request goes to the least busy server that is ready, and on to the next as long as nothing of an answer has been told."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from services.inference import replicas as watching
from services.inference.replicas import Replicas
from services.inference.router import create_app
from tests.conftest import free_port, wait_for
from tests.unit.exposition import parse

FULL = (429, {"error": {"message": "128 requests are waiting already.", "code": "busy"}})
ASLEEP = (503, {"error": {"message": "The run train-1 has the GPU now.", "code": "asleep"}})
EVENTS = [b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', b"data: [DONE]\n\n"]


class Breaks(Exception):
    """The server dies: its connection is cut where it stands."""


class Fake:
    """An inference server that answers as it is told to: `reply` gives (status, JSON), or the bytes of a stream."""

    def __init__(self, name: str) -> None:
        self.name, self.health = name, {"status": "ok", "engine": "fake", "gpus": [{"uuid": f"GPU-{name}"}]}
        self.reply: Callable[[], Any] = lambda: (200, {"by": name})
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.dead = False
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if fake.dead:
                    return self._cut()
                if self.path == "/health":
                    return self._whole(200, json.dumps(fake.health))
                if self.path == "/metrics":
                    return self._whole(
                        200, f"# HELP tandem_n_total It.\n# TYPE tandem_n_total counter\ntandem_n_total {len(name)}\n"
                    )
                fake.asked.append((self.path, dict(self.headers), body))
                try:
                    reply = fake.reply()
                    if isinstance(reply, tuple):
                        self._whole(reply[0], json.dumps(reply[1]))
                    else:
                        self._stream(reply)
                except Breaks:
                    self._cut()
                return None

            def _cut(self) -> None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def _whole(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Retry-After", "30")
                self.end_headers()
                self.wfile.write(text.encode())

            def _stream(self, blocks: Iterator[bytes]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for block in blocks:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def die(self) -> None:
        self.dead = True
        self.server.shutdown()
        self.server.server_close()


class Scene:
    """A router before two servers, `one` first and `two` second, and a third that was never there."""

    def __init__(self, stack: ExitStack) -> None:
        self.one, self.two = Fake("one"), Fake("two")
        for fake in (self.one, self.two):
            stack.callback(fake.die)
        self.replicas = Replicas([self.one.url, self.two.url, f"http://127.0.0.1:{free_port()}"])
        self.client = stack.enter_context(TestClient(create_app(self.replicas)))
        self.seen("ok", "ok")

    def seen(self, *states: str) -> None:
        """Wait until the servers are seen to be in these states."""
        for fake, state in zip((self.one, self.two), states, strict=True):
            fake.health = {**fake.health, "status": state}
        told = lambda: tuple(one.told.get("status") for one in self.replicas.all[:2])  # noqa: E731
        wait_for(lambda: told() == states, 5, "the router has looked")

    def ask(self, **more: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json={"model": "base", **more}, headers={"X-Request-Id": "abc"})

    def by(self) -> str:
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        return answer.json()["by"]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    with ExitStack() as stack:
        yield Scene(stack)


def held(fake: Fake, gate: threading.Event) -> Callable[[], Any]:
    def reply() -> Any:
        gate.wait(10)
        return 200, {"by": fake.name}

    return reply


def broken(*blocks: bytes) -> Callable[[], Iterator[bytes]]:
    def reply() -> Iterator[bytes]:
        yield from blocks
        raise Breaks

    return reply


def test_the_least_busy_one_is_asked_and_the_first_of_equals(scene: Scene) -> None:
    gate = threading.Event()
    scene.one.reply = held(scene.one, gate)
    asking = [threading.Thread(target=scene.ask) for _ in range(2)]
    asking[0].start()
    wait_for(lambda: scene.one.asked, 5, "the first one has a request in hand")
    scene.two.reply = held(scene.two, gate)
    asking[1].start()
    wait_for(lambda: scene.two.asked, 5, "the second one has the next")
    assert [one["requests"] for one in scene.client.get("/health").json()["replicas"]] == [1, 1, 0]
    gate.set()
    for thread in asking:
        thread.join(10)
    assert [scene.by() for _ in range(3)] == ["one"] * 3
    assert [one.busy for one in scene.replicas.all] == [0, 0, 0]


def test_one_that_is_ready_goes_before_one_that_is_idle(scene: Scene) -> None:
    scene.seen("asleep", "ok")
    assert scene.by() == "two" and not scene.one.asked
    scene.seen("asleep", "leaving")
    assert scene.by() == "two"
    scene.seen("asleep", "loading")
    assert scene.by() == "one", "it has exports to answer with"


def test_what_was_asked_arrives_as_it_was(scene: Scene) -> None:
    answer = scene.ask(messages=[{"role": "user", "content": "größer"}])
    path, headers, body = scene.one.asked[0]
    assert path == "/v1/chat/completions" and json.loads(body)["messages"][0]["content"] == "größer"
    assert headers["X-Request-Id"] == "abc"
    assert answer.headers["X-Tandem-Replica"] == scene.one.url.removeprefix("http://")
    scene.client.get("/v1/models/house%40v1?a=b")
    assert scene.one.asked[1][0] == "/v1/models/house%40v1?a=b"


@pytest.mark.parametrize("refusal", [FULL, ASLEEP], ids=["full", "asleep"])
def test_a_refusal_goes_on_to_the_next_and_is_told_when_all_refuse(scene: Scene, refusal: tuple[int, Any]) -> None:
    scene.one.reply = lambda: refusal
    assert scene.by() == "two" and len(scene.one.asked) == 1
    scene.two.reply = lambda: ASLEEP
    told = scene.ask()
    assert (told.status_code, told.json()) == refusal and told.headers["Retry-After"] == "30"


def test_what_is_too_much_for_the_ready_ones_is_not_put_on_one_that_sleeps(scene: Scene) -> None:
    scene.seen("ok", "asleep")
    scene.one.reply = lambda: FULL
    assert scene.ask().status_code == 429 and not scene.two.asked


def test_an_error_of_the_request_is_told_at_once(scene: Scene) -> None:
    scene.one.reply = lambda: (404, {"error": {"code": "model_not_found"}})
    assert scene.ask().status_code == 404 and not scene.two.asked


def test_one_that_is_dead_costs_no_request(scene: Scene) -> None:
    scene.one.die()
    assert [scene.by() for _ in range(3)] == ["two"] * 3
    scene.two.die()
    told = scene.ask()
    assert told.status_code == 503 and "try again in a moment" in told.json()["error"]["message"]
    assert int(told.headers["Retry-After"]) > 0
    wait_for(lambda: scene.client.get("/health").status_code == 503, 5, "the router has seen it")


def test_one_that_dies_before_its_answer_costs_no_request(scene: Scene) -> None:
    def dies() -> Any:
        raise Breaks

    scene.one.reply = dies
    assert scene.by() == "two" and len(scene.one.asked) == 1


def test_a_stream_is_passed_on_as_it_is(scene: Scene) -> None:
    scene.one.reply = lambda: iter([EVENTS[0] + EVENTS[1][:5], EVENTS[1][5:], EVENTS[2]])
    answer = scene.ask(stream=True)
    assert answer.headers["Content-Type"] == "text/event-stream" and answer.content == b"".join(EVENTS)


def test_a_stream_that_had_begun_breaks_off_with_an_error_and_nothing_half(scene: Scene) -> None:
    scene.one.reply = broken(EVENTS[0], EVENTS[1][:5])
    first, told, done = scene.ask(stream=True).text.split("\n\n")[:-1]
    assert first == 'data: {"n": 1}' and done == "data: [DONE]" and not scene.two.asked
    error = json.loads(told.removeprefix("data: "))["error"]
    assert error["type"] == "unavailable_error" and error["message"].endswith("Ask again.")


def test_a_response_that_had_begun_breaks_off_with_an_error_of_its_kind(scene: Scene) -> None:
    scene.one.reply = broken(*EVENTS[:2])
    text = scene.client.post("/v1/responses", json={"stream": True}).text
    event, told = text.split("\n\n")[2].splitlines()
    assert event == "event: error"
    assert json.loads(told.removeprefix("data: "))["sequence_number"] == 2


def test_health_is_that_of_the_best_and_of_each(scene: Scene) -> None:
    scene.seen("asleep", "ok")
    told = scene.client.get("/health").json()
    assert (told["status"], told["engine"]) == ("ok", "fake")
    assert [gpu["uuid"] for gpu in told["gpus"]] == ["GPU-one", "GPU-two"]
    assert [one["status"] for one in told["replicas"]] == ["asleep", "ok", "away"]


def test_metrics_are_those_of_all_each_under_its_name(scene: Scene) -> None:
    scene.by()
    found = parse(scene.client.get("/metrics").text)
    names = [one.name for one in scene.replicas.all]
    assert found["tandem_n_total"] == {(names[0],): 3, (names[1],): 3}
    assert found["tandem_replica_attempts_total"]["answered", names[0]] >= 1
    assert found["tandem_replica_ready"] == {(names[0],): 1, (names[1],): 1, (names[2],): 0}
