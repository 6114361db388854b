"""Everything from outside that should not be: refused with a reason, noted in a log, nothing written."""

import json
import pickle
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow
import pyarrow.parquet
import pytest

from shared import runs
from tests.stack.conftest import Stack

OPEN = {"/health", "/sign-in"}


def written(stack: Stack) -> set[str]:
    """What is published or queued."""
    folders = (stack.store.datasets(), stack.store.adapters(), stack.store.exports(), stack.store.keys())
    found = {str(path) for folder in folders for path in folder.rglob("*") if path.suffix != ".used"}
    return found | set(runs.ids(stack.store))


@pytest.fixture(autouse=True)
def nothing_written(stack: Stack) -> Iterator[None]:
    before = written(stack)
    yield
    assert written(stack) == before


@pytest.fixture
def stranger(stack: Stack) -> Iterator[httpx.Client]:
    with stack.browser() as client:
        yield client


@pytest.fixture
def friend(stack: Stack) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {stack.key}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=120) as client:
        yield client


def routes(stack: Stack) -> list[tuple[str, str]]:
    """Every route of the dashboard, with something in place of its variables, and those of the servers behind nginx."""
    script = """
import json
from services.dashboard.wsgi import app
print(json.dumps([[m, str(r)] for r in app.url_map.iter_rules() for m in sorted(r.methods - {"HEAD", "OPTIONS"})]))
"""
    told = stack.inside("dashboard", script).splitlines()[-1]
    own = [
        (m, "/".join("x" if part.startswith("<") else part for part in rule.split("/"))) for m, rule in json.loads(told)
    ]
    behind = [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")]
    behind += [("GET", "/gguf/health"), ("GET", "/gguf/slots"), ("POST", "/gguf/completion"), ("GET", "/gguf/metrics")]
    return own + behind


def test_without_a_key_every_route_is_refused(stack: Stack, stranger: httpx.Client) -> None:
    asked = routes(stack)
    assert len(asked) > 80
    for method, path in asked:
        if path in OPEN or path.startswith("/static/"):
            continue
        answer = stranger.request(method, path)
        assert answer.status_code in (401, 404) or (path == "/sign-out" and answer.status_code == 303), (
            method,
            path,
            answer,
        )
        if answer.status_code == 404:
            assert path in ("/auth", "/gguf/metrics"), (method, path)


def test_a_wrong_key_is_refused_and_slowed(stack: Stack) -> None:
    headers = {"Authorization": "Bearer tdm_" + "A" * 43}
    for path in ("/api/runs", "/v1/models", "/gguf/health"):
        began = time.monotonic()
        answer = httpx.get(stack.url + path, headers=headers, trust_env=False)
        assert answer.status_code == 401 and answer.json()["error"]["message"]
        assert time.monotonic() - began > 0.25
    assert '"status":401' in stack.logs("nginx").replace(" ", "")


def test_a_path_does_not_climb(friend: httpx.Client, stack: Stack) -> None:
    for path in ("/static/../../shared/auth.py", "/static/%2e%2e/%2e%2e/shared/auth.py", "/api/adapters/..%2f..%2fsecrets%2fsession",
                 "/api/exports/..%2fkeys/download", "/api/runs/..%2f..%2fsecrets", "/gguf/../api/keys/../../secrets"):  # fmt: skip
        answer = friend.send(friend.build_request("GET", stack.url + path))
        assert answer.status_code in (400, 404), (path, answer)
        assert b"import" not in answer.content and len(answer.content) < 20_000
    refused = friend.post("/api/datasets", params={"filename": "../../keys/x.jsonl", "name": "../keys"}, content=b"{}")
    assert refused.status_code in (400, 422)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(friend: httpx.Client) -> None:
    answer = friend.post("/v1/chat/completions", content=b"x" * (33 << 20))
    assert answer.status_code == 413 and "too large" in answer.json()["error"]["message"]
    claimed = f"POST /api/datasets?filename=a.jsonl HTTP/1.1\r\nHost: tandem\r\nContent-Length: {17 << 30}\r\n"
    claimed += f"Authorization: {friend.headers['authorization']}\r\n\r\n"
    with socket.create_connection((friend.base_url.host, friend.base_url.port), timeout=30) as line:
        line.sendall(claimed.encode())
        assert line.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_parquet_file_that_unpacks_to_gigabytes_is_refused(friend: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "bomb.parquet"
    row = "a" * (64 << 20)
    schema = pyarrow.schema([("text", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(64):
            writer.write_table(pyarrow.table({"text": [row]}, schema))
    assert file.stat().st_size < 2 << 20, "4 GB in less than 2 MB"
    answer = friend.post(
        "/api/datasets", params={"filename": "bomb.parquet", "name": "bomb"}, content=file.read_bytes()
    )
    assert answer.status_code in (400, 413, 422), answer.text[:500]
    assert friend.get("/api/system").status_code == 200


def test_what_is_no_conversation_is_refused(friend: httpx.Client) -> None:
    class Evil:
        def __reduce__(self):
            return (exec, ("open('/tmp/owned', 'w')",))

    for name, content in (
        ("model.safetensors", pickle.dumps(Evil())),
        ("rows.jsonl", pickle.dumps(Evil())),
        ("rows.json.gz", zlib.compress(b"{}" * 1000)),
        ("<img src=x onerror=alert(1)>.html", b"<script>alert(1)</script>"),
        ("rows.csv", b"\x00" * 5000),
    ):
        answer = friend.post("/api/datasets", params={"filename": name, "name": "evil"}, content=content)
        assert answer.status_code in (400, 415, 422), (name, answer.text[:300])
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_post_from_another_site_does_not_count(stack: Stack, stranger: httpx.Client) -> None:
    link = stack.compose(
        "exec",
        "-T",
        "dashboard",
        "python",
        "-c",
        """
from shared import auth, settings
from shared.store import Store
print(auth.new_sign_in(Store(settings.load().data)))""",
    ).strip()
    assert stranger.get("/sign-in", params={"token": link}).status_code == 303
    assert stranger.get("/api/keys").status_code == 200
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}, {}):
        for method, path in (("POST", "/api/keys"), ("POST", "/v1/chat/completions"), ("DELETE", "/api/runs/x")):
            answer = stranger.request(method, path, headers=headers, json={"name": "stolen"})
            assert answer.status_code == 403, (method, path, headers, answer)
    assert stranger.get("/sign-in", params={"token": link}).status_code in (303, 401), "the link worked once"


def test_every_answer_is_told_in_a_log_with_its_id(stack: Stack, friend: httpx.Client) -> None:
    ident = friend.get("/api/runs?secret=of-the-query").headers["x-request-id"]
    for service in ("nginx", "dashboard"):
        lines = [line for line in stack.logs(service).splitlines() if ident in line]
        assert lines and json.loads(lines[0]), service
        assert "of-the-query" not in "".join(lines)


def test_the_headers_forbid_what_no_page_needs(friend: httpx.Client) -> None:
    page = friend.get("/", headers={"Accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    for name in ("x-content-type-options", "x-frame-options", "referrer-policy", "permissions-policy"):
        assert name in page.headers
    assert "server" not in page.headers or "/" not in page.headers["server"]
    assert page.text.lstrip().lower().startswith("<!doctype html>")
