"""What the inference server counts of each answer, and the line that it logs."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.inference.access import Asked, outcome
from services.inference.engine import Busy, Sampling, Token
from services.inference.gguf import LlamaEngine
from services.inference.metrics import add_route
from shared.harmony import Encoder
from shared.settings import Settings
from tests.conftest import BASE
from tests.unit.exposition import inference, parse


class Stub:
    """An engine that says two tokens and then does as it is told."""

    name = "stub"
    then = "end"

    async def generate(self, prompt, sampling: Sampling, weights) -> AsyncIterator[list[Token]]:
        if self.then == "refuse":
            raise Busy(1)
        yield [Token(17)]
        yield [Token(18)]
        if self.then == "break":
            raise httpx.ReadError("broken")
        if self.then == "wait":
            await asyncio.sleep(60)
        yield [Token(sampling.stops[0])]


@pytest.fixture
def served(settings: Settings, encoder: Encoder):
    engine = Stub()
    client = TestClient(inference(settings, encoder, engine), raise_server_exceptions=False)
    return engine, client


class Leaving:
    """The application for a client that leaves when it has waited for 0.2 s."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        asked = False

        async def receive_and_leave() -> dict:
            nonlocal asked
            if not asked:
                asked = True
                return await receive()
            await asyncio.sleep(0.2)
            return {"type": "http.disconnect"}

        await self.app(scope, receive_and_leave if scope["type"] == "http" else receive, send)


def change(client: TestClient, **more) -> dict[str, float]:
    """What a completion adds to the counters of the base and of refused requests."""
    before = parse(client.get("/metrics").text)
    asker = TestClient(Leaving(client.app), raise_server_exceptions=False)
    asker.post("/v1/completions", json={"model": BASE, "prompt": [1, 2, 3], **more})
    after = parse(client.get("/metrics").text)
    assert after["tandem_requests_running"][()] == 0
    return {
        " ".join([name.removeprefix("tandem_"), *labels]): value - before[name].get(labels, 0)
        for name, samples in after.items()
        for labels, value in samples.items()
        if name.endswith(("_total", "_count")) and value != before[name].get(labels, 0)
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("then", "ends"), [("end", "ok"), ("break", "error"), ("wait", "cancelled")])
def test_answers_are_counted_by_how_they_ended(served, then: str, ends: str, stream: bool) -> None:
    engine, client = served
    engine.then = then
    tokens = 3 if then == "end" else 2
    expected = {
        f"requests_total base {ends}": 1, "prompt_tokens_total base": 3, "generation_tokens_total base": tokens,
        "time_to_first_token_seconds_count base": 1, "inter_token_latency_seconds_count base": tokens - 1,
    }  # fmt: skip
    if ends == "ok":
        expected["e2e_request_latency_seconds_count base"] = 1
    assert change(client, stream=stream) == expected


def test_several_answers_are_counted_together(served, caplog) -> None:
    with caplog.at_level("INFO", "tandem.access"):
        added = change(served[1], n=3, seed=1)
    assert added["requests_total base ok"] == 1 and added["generation_tokens_total base"] == 9
    assert added["prompt_tokens_total base"] == 3, "the prompt is read once, as usage says"
    (fields,) = (record.fields for record in caplog.records if getattr(record, "fields", {}).get("model"))
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (3, 9)


def test_a_request_that_cannot_be_answered_is_refused(served) -> None:
    served[0].then = "refuse"
    assert change(served[1]) == {"requests_total base refused": 1}
    assert change(served[1], model="nobody@v1") == {"requests_total none refused": 1}
    assert change(served[1], prompt=[]) == {"requests_total none refused": 1}
    assert outcome(Asked("a", status=503)) == "refused", "the engine was away"
    assert outcome(Asked("a", status=500)) == "error"


def test_an_access_line_has_the_request_and_what_answered_but_not_what_was_said(served, caplog) -> None:
    with caplog.at_level("INFO", "tandem.access"):
        body = {"model": BASE, "prompt": "my secret", "max_tokens": 9}
        served[1].post("/v1/completions?key=secret", json=body, headers={"X-Request-Id": "abc"})
        served[1].get("/health")
    (record,) = (record for record in caplog.records if record.name == "tandem.access")
    fields = record.fields
    assert (fields["request_id"], fields["path"], fields["status"]) == ("abc", "/v1/completions", 200)
    assert (fields["model"], fields["sha256"], fields["completion_tokens"]) == (BASE, "5ha", 3)
    assert fields["ms"] >= fields["ttft_ms"] >= 0 and fields["outcome"] == "ok"
    assert "secret" not in json.dumps(fields)


@pytest.mark.parametrize(("status", "ready"), [("ok", 1), ("loading", 0), ("asleep", 0)])
def test_the_engine_is_ready_when_health_says_so(status: str, ready: int) -> None:
    app = FastAPI()
    add_route(app, lambda: {"status": status, "gpus": [{"uuid": "GPU-1", "memory_used": 3, "memory_total": 4}]})
    found = parse(TestClient(app).get("/metrics").text)
    assert found["tandem_engine_ready"] == {(): ready}
    assert found["tandem_gpu_memory_used_bytes"] == {("inference", "GPU-1"): 3}


def test_llama_cpp_is_asked_under_the_same_request_id(settings: Settings, encoder: Encoder) -> None:
    seen = []

    class Llama(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.command, self.headers["X-Request-Id"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": BASE}]}).encode())

        def do_POST(self) -> None:
            seen.append((self.command, self.headers["X-Request-Id"]))
            self.send_response(200)
            self.end_headers()
            # U+2028 ends a line for str, and not for a server
            self.wfile.write('data: {"content": "yes\u2028", "stop": true, "stop_type": "eos"}\n\n'.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Llama)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    engine = LlamaEngine(f"http://127.0.0.1:{server.server_port}", lambda: encoder)
    client = TestClient(inference(settings, encoder, engine))
    body = {"model": BASE, "prompt": [1, 2], "stream": True}
    assert "yes" in client.post("/v1/completions", json=body, headers={"X-Request-Id": "abc"}).text
    assert seen == [("GET", "abc"), ("POST", "abc")]
    server.shutdown()
    server.server_close()
