"""The door of the dashboard's API: who may in, by a key or by a session, and what each answer carries or refuses."""

import json
import time

import pytest

from shared import auth, logs
from shared.settings import Settings
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


def test_metrics_are_for_the_inside_and_for_whoever_has_a_key(api: Api) -> None:
    client, through_nginx = api.app.test_client(), {"X-Real-IP": "203.0.113.7"}
    assert "tandem_runs{" in client.get("/metrics").text
    assert client.get("/metrics", headers=through_nginx).status_code == 401
    assert client.get("/metrics", headers={**through_nginx, "Authorization": "Bearer tdm_wrong"}).status_code == 401
    assert api("GET", "/metrics", headers=through_nginx).status_code == 200
    assert browser(api).get("/metrics", headers=through_nginx).status_code == 200


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
    line = json.loads(logs.Lines("dashboard").format(caplog.records[-1]))
    assert (line["service"], line["level"]) == ("dashboard", "info")
    assert (line["request_id"], line["path"], line["status"]) == ("abc", "/sign-in", 401)
    assert "secret" not in json.dumps(line)


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
