"""A run waits, before it loads a model, until the inference server has left the GPU that they share."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.trainer import room
from services.trainer.child import Context, Stopped
from shared import runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import free_port, wait_for

GPU = {"uuid": "GPU-1"}


class Health:
    """What the inference server says of itself: (HTTP status, JSON)."""

    code, told, asked = 200, {"status": "ok", "gpus": [GPU]}, 0


@pytest.fixture
def health() -> Iterator[Health]:
    state = Health()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            self.send_response(state.code)
            self.end_headers()
            self.wfile.write(json.dumps(state.told).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def context(settings: Settings, store: Store, health: Health, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(room, "gpus", lambda: [GPU])
    monkeypatch.setattr(room, "ASK_SECONDS", 0.01)
    spec = runs.create(store, "train-1", "train", Job(dataset="d@1", recipe="tiny", name="house"))
    return Context(settings.model_copy(update={"inference_url": health.url}), store, spec, 1)


def told(context: Context, type_: str) -> list[str]:
    return [event["text"] for event in runs.all_events(context.store, context.spec.id, type_)]


@pytest.mark.parametrize(
    "said",
    [
        {"status": "asleep", "run": "train-1", "gpus": [GPU]},
        {"status": "ok", "gpus": [{"uuid": "GPU-2"}]},
        {"status": "ok", "gpus": []},
        {"status": "ok"},
        {
            "status": "ok",
            "gpus": [GPU, {"uuid": "GPU-2"}],
            "replicas": [
                {"status": "asleep", "run": "train-1", "gpus": [GPU]},
                {"status": "ok", "gpus": [{"uuid": "GPU-2"}]},
                {"status": "away", "gpus": []},
            ],
        },
    ],
    ids=["asleep", "another GPU", "no GPU", "tells none", "asleep behind a router"],
)
def test_it_goes_on_at_once_where_the_gpu_is_free(context: Context, health: Health, said: dict) -> None:
    health.told = said
    room.wait_for_room(context, patience=0)
    assert health.asked == 1 and not told(context, "log") and not told(context, "warning")


def test_it_goes_on_at_once_without_an_inference_server(context: Context) -> None:
    context.settings = context.settings.model_copy(update={"inference_url": f"http://127.0.0.1:{free_port()}"})
    room.wait_for_room(context, patience=0)
    assert not told(context, "warning")


def test_without_a_gpu_nobody_is_asked(context: Context, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "gpus", list)
    room.wait_for_room(context, patience=0)
    assert health.asked == 0


@pytest.mark.parametrize(
    ("code", "said"), [(200, "ok"), (200, "leaving"), (503, "loading")], ids=["ok", "leaving", "loading"]
)
def test_it_waits_until_the_server_sleeps_because_of_this_run(
    context: Context, health: Health, code: int, said: str
) -> None:
    health.code, health.told = code, {"status": said, "gpus": [GPU]}
    waiting = threading.Thread(target=room.wait_for_room, args=(context,))
    waiting.start()
    wait_for(lambda: health.asked > 2, 5, "it asks again")
    health.code, health.told = 200, {"status": "asleep", "run": "train-0", "gpus": [GPU]}
    asked = health.asked
    wait_for(lambda: health.asked > asked + 2, 5, "it asks again")
    assert waiting.is_alive(), "the server would wake when that run has ended"
    health.told = {"status": "asleep", "run": "train-1", "gpus": [GPU]}
    waiting.join(5)
    assert not waiting.is_alive() and not told(context, "warning")
    assert told(context, "log") == [
        "Waiting for the inference server, which has the same GPU, to give its memory back."
    ]


def test_it_goes_on_with_a_warning_in_the_end(context: Context) -> None:
    room.wait_for_room(context, patience=0.05)
    assert len(told(context, "log")) == 1
    assert "goes on beside it" in told(context, "warning")[0]


def test_it_can_be_cancelled_while_it_waits(context: Context) -> None:
    threading.Timer(0.1, lambda: setattr(context, "stopping", True)).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        room.wait_for_room(context)
    assert time.monotonic() - began < 5


def test_a_server_that_is_too_busy_to_answer_is_waited_for(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        context.settings = context.settings.model_copy(update={"inference_url": url})
        monkeypatch.setattr(room, "ANSWER_SECONDS", 0.05)
        room.wait_for_room(context, patience=0.1)
    assert told(context, "warning")
