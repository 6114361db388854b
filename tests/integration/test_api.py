"""The dashboard's API besides data sets and runs: who may in, the system, recipes, adapters, exports, aliases and keys."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from shared import auth
from shared.settings import Settings
from shared.store import write_json
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def browser(api: Api):
    """A client with a session, as a browser has one."""
    client = api.app.test_client()
    token = auth.new_sign_in(api.store)
    assert client.get(f"/sign-in?token={token}").status_code == 303
    return client


# ---- who may in


def test_without_key_or_session_everything_but_health_is_401(api: Api) -> None:
    client = api.app.test_client()
    for path in ("/", "/chat", "/runs/x", "/api/runs", "/api/openapi.json", "/nothing", "/auth"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.json["error"]["type"] == "unauthorized"
    assert client.get("/health").json == {"status": "ok"}
    chromium = "text/html,application/xml;q=0.9,image/avif,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
    page = client.get("/", headers={"Accept": chromium})
    assert page.status_code == 401
    assert "Sign in" in page.text


def test_a_wrong_key_is_refused_and_slowed(api: Api) -> None:
    began = time.monotonic()
    answer = api("GET", "/api/runs", 401, headers={"Authorization": "Bearer tdm_wrong"})
    assert time.monotonic() - began >= 0.3
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key_opens_nothing(api: Api) -> None:
    made = api("POST", "/api/keys", 201, json={"name": "laptop"}).json
    theirs = {"Authorization": f"Bearer {made['key']}"}
    api("GET", "/api/runs", 200, headers=theirs)
    listed = api("GET", "/api/keys", 200).json["items"]
    assert made["key"] not in json.dumps(listed)
    assert next(key for key in listed if key["id"] == made["id"])["last_used"]
    api("DELETE", f"/api/keys/{made['id']}", 204)
    api("GET", "/api/runs", 401, headers=theirs)
    api("DELETE", f"/api/keys/{made['id']}", 404)
    api("POST", "/api/keys", 400, json={"name": " "})


def test_a_sign_in_link_works_once(api: Api) -> None:
    token = auth.new_sign_in(api.store)
    first, second = api.app.test_client(), api.app.test_client()
    answer = first.get(f"/sign-in?token={token}")
    assert answer.status_code == 303
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert first.get("/api/runs").status_code == 200
    assert second.get(f"/sign-in?token={token}").status_code == 401
    assert second.get("/api/runs").status_code == 401


def test_a_session_counts_only_for_requests_of_its_own_site(api: Api) -> None:
    client = browser(api)
    body = {"json": {"name": "x"}}
    assert client.post("/api/keys", **body).status_code == 403
    assert client.post("/api/keys", headers={"Sec-Fetch-Site": "cross-site"}, **body).status_code == 403
    assert client.post("/api/keys", headers={"Sec-Fetch-Site": "same-site"}, **body).status_code == 403
    assert client.post("/api/keys", headers={"Origin": "http://elsewhere"}, **body).status_code == 403
    assert client.post("/api/keys", headers={"Origin": "null"}, **body).status_code == 403
    assert client.post("/api/keys", headers={"Sec-Fetch-Site": "same-origin"}, **body).status_code == 201
    assert client.post("/api/keys", headers={"Origin": "http://localhost"}, **body).status_code == 201


def test_nginx_is_told_who_may_use_the_other_services(api: Api) -> None:
    client = browser(api)
    assert client.get("/auth").status_code == 204
    assert client.get("/auth", headers={"X-Original-Method": "POST"}).status_code == 403
    assert (
        client.get("/auth", headers={"X-Original-Method": "POST", "Sec-Fetch-Site": "same-origin"}).status_code == 204
    )
    assert api("GET", "/auth", headers={"X-Original-Method": "POST"}).status_code == 204
    assert api.app.test_client().get("/auth").status_code == 401


def test_signing_out_ends_the_session(api: Api) -> None:
    client = browser(api)
    assert client.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert client.get("/api/runs").status_code == 401


def test_a_forged_session_is_none(api: Api) -> None:
    client = api.app.test_client()
    client.set_cookie("tandem", "eyJpbiI6dHJ1ZX0.aaaaaa.forged")
    assert client.get("/api/runs").status_code == 401


# ---- what every answer carries


def test_answers_carry_security_headers_and_the_request_id(api: Api) -> None:
    answer = browser(api).get("/", headers={"X-Request-Id": "from-nginx-1", "Accept": "text/html"})
    assert answer.headers["X-Request-Id"] == "from-nginx-1"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    assert api("GET", "/api/runs", headers={"X-Request-Id": "no good\t"}).headers["X-Request-Id"] != "no good\t"


def test_the_access_log_never_has_the_query(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tandem.access"):
        api.app.test_client().get("/sign-in?token=secret", headers={"X-Request-Id": "abc"})
    line = json.loads(caplog.messages[-1])
    assert (line["request"], line["path"], line["status"]) == ("abc", "/sign-in", 401)
    assert "secret" not in caplog.text


def test_what_is_not_there_is_said_so(api: Api) -> None:
    assert api("GET", "/api/nothing", 404).json["error"]["type"] == "not_found"
    assert api("PATCH", "/api/runs", 405).headers["Allow"]
    assert (
        api("POST", "/api/keys", 422, data="{", content_type="application/json").json["error"]["type"] == "bad_request"
    )
    body = api("POST", "/api/keys", 422, json={"name": 3, "colour": "red"}).json["error"]
    assert {detail["field"] for detail in body["details"]} == {"name", "colour"}
    api("POST", "/api/keys", 413, data=b'{"name": "' + b"x" * (2 << 20), content_type="application/json")


@pytest.mark.parametrize("path", ["/api/datasets", "/api/adapters", "/api/exports", "/api/runs", "/runs"])
@pytest.mark.parametrize(
    "name", ["..", "..%2F..%2Fetc%2Fpasswd", "%2e%2e%2fkeys", ".staging-1", "a@..", "a@b@c", "A B", "%00", "x" * 300]
)
def test_a_name_is_never_a_path(api: Api, path: str, name: str) -> None:
    answer = api("GET", f"{path}/{name}", headers={"Accept": "application/json"})
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


# ---- system and recipes


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


# ---- adapters, exports, aliases


def test_an_alias_moves_and_goes_back(api: Api) -> None:
    first, second = api.adapter(), api.adapter()
    assert api("PUT", "/api/aliases/production", 200, json={"target": first}).json["before"] is None
    moved = api("PUT", "/api/aliases/production", 200, json={"target": second}).json
    assert moved == {"alias": "production", "target": second, "before": first}
    assert api("POST", "/api/aliases/production/undo", 200).json["target"] == first
    item = api("GET", "/api/aliases", 200).json["items"][0]
    assert [change["target"] for change in item["history"]] == [first, second, first]
    api("DELETE", "/api/aliases/production", 204)
    api("DELETE", "/api/aliases/production", 404)
    api("PUT", "/api/aliases/production", 404, json={"target": "chats@v9"})
    api("PUT", "/api/aliases/No%20Name", 400, json={"target": first})
    api("POST", "/api/aliases/unknown/undo", 404)


def test_a_removed_alias_keeps_its_history_and_comes_back(api: Api) -> None:
    adapter = api.adapter()
    api("PUT", "/api/aliases/production", 200, json={"target": adapter})
    api("DELETE", "/api/aliases/production", 204)
    assert api("GET", "/api/aliases", 200).json["items"] == []
    listed = api("GET", "/api/aliases?removed=true", 200).json
    assert [(item["alias"], item["target"]) for item in listed["items"]] == [("production", None)]
    assert [change["target"] for change in listed["items"][0]["history"]] == [adapter, None]
    assert api("POST", "/api/aliases/production/undo", 200).json["target"] == adapter
    assert api("GET", "/api/aliases?removed=true", 200).json["total"] == 1


def test_an_adapter_is_found_by_name_version_alias_and_bare_name(api: Api) -> None:
    first, second = api.adapter(), api.adapter()
    api("PUT", "/api/aliases/production", 200, json={"target": first})
    for ref, found in ((first, first), ("production", first), ("chats", second)):
        assert api("GET", f"/api/adapters/{ref}", 200).json["reference"] == found
    api("PUT", "/api/aliases/chats", 200, json={"target": first})
    assert api("GET", "/api/adapters/chats", 200).json["reference"] == first
    api("PUT", "/api/aliases/gguf", 200, json={"target": api.export()})
    for ref in ("gguf", "none", "chats@v9"):
        assert "There are: chats@v2, chats@v1" in api("GET", f"/api/adapters/{ref}", 404).json["error"]["message"]
    api("DELETE", "/api/adapters/chats", 400)  # what deletes is named in full
    api("DELETE", "/api/adapters/production", 400)


def test_the_files_of_an_adapter_are_listed_and_had_whole_and_in_parts(api: Api) -> None:
    adapter = api.adapter()
    listed = api("GET", f"/api/adapters/{adapter}/files", 200).json["items"]
    assert {"name": "adapter_model.safetensors", "bytes": 7} in listed
    address = "/api/adapters/chats/files/adapter_model.safetensors"
    assert api("GET", address, 200).data == b"weights"
    part = api.app.test_client().get(address, headers={"Authorization": f"Bearer {api.key}", "Range": "bytes=2-4"})
    assert (part.status_code, part.data) == (206, b"igh")
    for name in ("none", "..", "%2e%2e%2fcard.json", "..%2f..%2f..%2fkeys", ".hidden"):
        answer = api("GET", f"/api/adapters/{adapter}/files/{name}")
        assert answer.status_code == 404, name
    assert "There are: adapter_model" in api("GET", f"/api/adapters/{adapter}/files/none", 404).json["error"]["message"]


def test_what_an_alias_points_at_stays(api: Api) -> None:
    adapter, export = api.adapter(), api.export()
    for alias, target, path in (("a", adapter, f"/api/adapters/{adapter}"), ("b", export, f"/api/exports/{export}")):
        api("PUT", f"/api/aliases/{alias}", 200, json={"target": target})
        assert api("GET", path, 200).json["aliases"] == [alias]
        assert api("DELETE", path, 409).json["error"]["details"] == [alias]
        api("DELETE", f"/api/aliases/{alias}", 204)
        api("DELETE", path, 204)
        api("GET", path, 404)


def test_a_deleted_version_is_never_given_again(api: Api) -> None:
    assert api.adapter() == "chats@v1"
    api("DELETE", "/api/adapters/chats@v1", 204)
    assert api.adapter() == "chats@v2"
    assert [card["reference"] for card in api("GET", "/api/adapters", 200).json["items"]] == ["chats@v2"]


def test_an_adapter_that_a_run_needs_stays(api: Api) -> None:
    adapter = api.adapter()
    api.run("train-1", adapter=adapter)
    assert api("DELETE", f"/api/adapters/{adapter}", 409).json["error"]["details"] == ["train-1"]


def test_exports_are_downloaded_whole_and_in_parts(api: Api) -> None:
    file = api.export()
    assert api("GET", "/api/exports", 200).json["items"][0]["file"] == file
    whole = api("GET", f"/api/exports/{file}/download", 200)
    assert whole.data == b"GGUF and more"
    assert f"filename={file}" in whole.headers["Content-Disposition"]
    part = api.app.test_client().get(
        f"/api/exports/{file}/download", headers={"Authorization": f"Bearer {api.key}", "Range": "bytes=5-7"}
    )
    assert (part.status_code, part.data) == (206, b"and")
    text = api("GET", "/api/exports/chats-v1-MXFP4/modelfile", 200).text
    assert f"FROM ./{file}" in text
    assert "<|start|>assistant" in text
    api("GET", "/api/exports/none/download", 404)
