"""What the dashboard's API says of the system, which of its services are up, and of the recipes that a run can follow."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from shared.settings import Settings
from shared.store import write_json
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


class _Loading(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if "llama" in self.path else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_system_says_what_is_up(settings: Settings) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Loading)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    api = Api(settings.model_copy(update={"inference_url": url, "llama_url": f"{url}/llama"}))
    api.run("train-1")
    worker = api.store.workers() / "trainer-box.json"
    gpu = {"index": 0, "name": "card", "uuid": "GPU-1"}
    write_json(worker, {"host": "box", "pid": 1, "since": "2026-01-01T00:00:00Z", "gpus": [gpu], "busy": "train-1"})
    body = api("GET", "/api/system", 200).json
    assert {name: service["state"] for name, service in body["services"].items()} == {
        "dashboard": "up",
        "redis": "up",
        "trainer": "up",
        "inference": "up",
        "llama": "starting",
    }
    assert body["queue"] == {"waiting": 0, "queued": 1, "running": 0}
    assert body["gpus"] == [{**gpu, "held_by": ["trainer"]}]
    assert body["base_model_cached"] is True
    assert body["disk"]["by_kind"]["runs"] > 0
    long_ago = time.time() - 60
    os.utime(worker, (long_ago, long_ago))
    server.shutdown()
    server.server_close()
    body = api("GET", "/api/system", 200).json
    assert body["services"]["trainer"]["state"] == body["services"]["inference"]["state"] == "down"
    assert body["gpus"] == []


def test_a_server_that_has_lent_its_gpu_sleeps_and_is_no_trouble(settings: Settings) -> None:
    told = {"status": "asleep", "run": "train-1", "since": "2026-01-01T00:00:00Z", "gpus": []}
    loading = {"status": "loading", "detail": "Waiting for x/y"}

    class Health(_Loading):
        def do_GET(self) -> None:
            super().do_GET()
            self.wfile.write(
                json.dumps(loading if "llama" in self.path else told if "inference" in self.path else {}).encode()
            )

    server = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    api = Api(settings.model_copy(update={"inference_url": f"{url}/inference", "llama_url": f"{url}/llama"}))
    services = api("GET", "/api/system", 200).json["services"]
    asleep = {"state": "asleep", "detail": "its GPU is lent to train-1", "since": told["since"]}
    assert services["inference"] == asleep
    assert (services["llama"]["state"], services["llama"]["detail"]) == ("starting", "Waiting for x/y")

    api = Api(settings.model_copy(update={"inference_url": f"{url}/inference", "llama_url": url}))
    write_json(api.store.workers() / "trainer-box.json", {"busy": "train-1", "kind": "train"})
    html = {"Accept": "text/html"}
    for path, words in {
        "/system": "Base and adapters answer again, by themselves",
        "/chat": "its GPU is lent to train-1. Base and adapters answer again",
    }.items():
        page = api("GET", path, 200, headers=html).text
        assert words in page and "Inference asleep" in page and "not up" not in page
    told |= {"status": "ok"}
    del told["run"]
    assert "All services up" in (page := api("GET", "/chat", 200, headers=html).text) and "lent" not in page
    told |= {"replicas": [{"status": "ok"}, {"status": "away"}]}
    assert api("GET", "/api/system", 200).json["services"]["inference"]["detail"] == "1 of 2 servers ready"
    server.shutdown()
    server.server_close()


def test_a_silent_service_costs_one_second(settings: Settings) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        api = Api(settings.model_copy(update={"inference_url": url, "llama_url": url}))
        began = time.monotonic()
        assert api("GET", "/api/system", 200).json["services"]["llama"]["state"] == "down"
        assert time.monotonic() - began < 1.8


def test_recipes_come_with_what_a_form_needs(api: Api) -> None:
    body = api("GET", "/api/recipes", 200).json
    assert {"quick_test", "standard", "high_quality", "memory_efficient"} <= {item["name"] for item in body["items"]}
    rank = body["fields"]["lora_rank"]
    assert (rank["type"], rank["bounds"], rank["default"]) == ("integer", {"minimum": 1, "maximum": 256}, 16)
    assert all(set(item["values"]) == set(body["fields"]) for item in body["items"])
    one = api("GET", "/api/recipes/standard", 200).json
    assert "#" in one["yaml"]
    api("GET", "/api/recipes/none", 404)
