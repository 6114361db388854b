"""A run's events: by page, and streamed by a real gunicorn, resumed exactly where a connection broke."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from shared import runs
from shared.settings import Settings
from tests.conftest import ROOT, environment, free_port, wait_for
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


@pytest.fixture
def http(api: Api) -> Iterator[httpx.Client]:
    """A client of the dashboard as it is deployed."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "64", "-b", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "services.dashboard.wsgi:app"], cwd=ROOT, env=environment(api.settings))
    headers = {"Authorization": f"Bearer {api.key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=10) as client:
        wait_for(lambda: _healthy(client), 20, "gunicorn answers")
        yield client
    process.terminate()
    process.wait(20)


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def listen(http: httpx.Client, run_id: str, most: int = 10**9, **headers: str) -> list[tuple[str, int, dict]]:
    """(type, id, data) of the events of a stream, until it ends or `most` have come."""
    heard: list[tuple[str, int, dict]] = []
    with http.stream("GET", f"/api/runs/{run_id}/events/stream", headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            key, _, value = line.partition(": ")
            fields[key] = value
            if not line and "event" in fields:
                heard.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
                fields = {}
                if len(heard) == most:
                    break
    return heard


def _hold(http: httpx.Client, run_id: str) -> None:
    """Listen to the end, or be refused at once."""
    with http.stream("GET", f"/api/runs/{run_id}/events/stream", timeout=30) as answer:
        answer.read()


def _refused(http: httpx.Client, run_id: str) -> bool:
    with http.stream("GET", f"/api/runs/{run_id}/events/stream") as answer:
        return answer.status_code == 503


def test_events_are_read_by_page(api: Api) -> None:
    run_id = api.run("train-1", "running")
    for n in range(5):
        runs.append_event(api.store, run_id, "log", text=f"line {n}\u2028 ü")
    first = api("GET", f"/api/runs/{run_id}/events?limit=2", 200).json
    assert ([e["text"][:6] for e in first["items"]], first["ended"]) == (["line 0", "line 1"], False)
    assert first["next"] == first["items"][-1]["offset"]
    rest = api("GET", f"/api/runs/{run_id}/events?after={first['next']}", 200).json
    assert len(rest["items"]) == 3
    runs.finish(api.store, run_id, "succeeded")
    assert api("GET", f"/api/runs/{run_id}/events?limit=2", 200).json["ended"] is False
    assert api("GET", f"/api/runs/{run_id}/events?after={rest['next']}", 200).json["ended"] is True
    assert "start of an event" in api("GET", f"/api/runs/{run_id}/events?after=3", 400).json["error"]["message"]
    api("GET", f"/api/runs/{run_id}/events?after=99999999", 400)
    api("GET", "/api/runs/none/events", 404)


def test_a_stream_that_cannot_begin_says_why(api: Api) -> None:
    run_id = api.run("train-1", "running")
    runs.append_event(api.store, run_id, "log", text="x")
    api("GET", "/api/runs/none/events/stream", 404)
    api("GET", f"/api/runs/{run_id}/events/stream?after=2", 400)
    api("GET", f"/api/runs/{run_id}/events/stream", 400, headers={"Last-Event-ID": "-1"})
    api("GET", f"/api/runs/{run_id}/events/stream", 400, headers={"Last-Event-ID": "x"})


def test_a_run_cancelled_before_it_began_ends_its_stream(api: Api) -> None:
    run_id = api.run("train-1")
    api("POST", f"/api/runs/{run_id}/cancel", 200)
    assert "event: end" in api("GET", f"/api/runs/{run_id}/events/stream", 200).text


def test_a_stream_tells_each_event_once_however_often_it_breaks(api: Api, http: httpx.Client) -> None:
    run_id = api.run("train-1", "running")

    def work() -> None:
        for n in range(60):
            runs.append_event(api.store, run_id, "metric", step=n, loss=1.0)
            time.sleep(0.01)
        runs.finish(api.store, run_id, "succeeded", result="chats@v1")

    worker = threading.Thread(target=work)
    worker.start()
    heard = listen(http, run_id, most=7)
    while heard[-1][0] != "end":
        heard += listen(http, run_id, most=13, **{"Last-Event-ID": str(heard[-1][1])})
    worker.join()
    assert [data["step"] for kind, _, data in heard if kind == "metric"] == list(range(60))
    assert [kind for kind, _, _ in heard][60:] == ["status", "end"]
    assert heard[60][2]["result"] == "chats@v1"
    assert listen(http, run_id, **{"Last-Event-ID": str(heard[-1][1])})[0][0] == "end"


def test_many_streams_leave_room_for_other_requests(api: Api, http: httpx.Client) -> None:
    run_id = api.run("train-1", "running")
    open_ones = [threading.Thread(target=_hold, args=(http, run_id), daemon=True) for _ in range(45)]
    for thread in open_ones:
        thread.start()
    wait_for(lambda: _refused(http, run_id), 10, "the last stream is taken")
    began = time.monotonic()
    assert http.get("/api/runs").is_success
    assert time.monotonic() - began < 2
    runs.finish(api.store, run_id, "failed", "because")
    for thread in open_ones:
        thread.join(10)
    wait_for(lambda: listen(http, run_id)[-1][0] == "end", 10, "a stream is free again")
