"""The whole chain through nginx, on the local stack, as the demo runs it and as a person's script would."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from services.cli import demo, stack
from services.cli.client import Client
from tests.conftest import BASE, ROOT, free_port


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, hf_home: Path) -> Iterator[stack.Stack]:
    folder = tmp_path_factory.mktemp("stack")
    port = random.randrange(20000, 28000, 10)
    with stack.start(ROOT, port, folder=folder, base_model=BASE, extra={"HF_HOME": str(hf_home)}) as found:
        found.wait_healthy(120)
        yield found


@pytest.fixture(scope="module")
def key(running: stack.Stack) -> str:
    return demo.local_key(running.data, running.layout.folder)


@pytest.fixture(scope="module")
def report(running: stack.Stack, key: str) -> demo.Report:
    found = demo.Report()
    demo.chain(Client(running.url, key=key), found)
    return found


def test_the_chain_proves_itself(report: demo.Report) -> None:
    assert report.ok, json.dumps(vars(report), indent=1)
    assert report.dataset["rows"]["read"] >= 100 and report.dataset["rows"]["rejected"] == 0
    assert report.train["loss_last"] < report.train["loss_first"] / 2
    assert report.export["parity"]["top1"] >= 0.95 and report.export["parity"]["prompt_tokens_equal"]
    assert list(vars(report)) == ["dataset", "train", "adapter", "export", "answers", "seconds", "ok"]


def test_a_stream_comes_through_nginx_piece_by_piece(running: stack.Stack, key: str, report: demo.Report) -> None:
    client = OpenAI(base_url=f"{running.url}/v1", api_key=key)
    messages = [{"role": "user", "content": "When are you open?"}]
    chunks = list(client.chat.completions.create(model="production", messages=messages, temperature=0, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == report.answers[0]["adapter"] and len(chunks) > 5


def test_llama_cpp_is_behind_gguf(running: stack.Stack, key: str, report: demo.Report) -> None:
    answer = httpx.get(f"{running.url}/gguf/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert answer.json()["data"][0]["id"] == report.export["file"].removesuffix(".gguf")


def test_a_sign_in_link_works_once(running: stack.Stack) -> None:
    from shared import auth
    from shared.store import Store

    link = f"{running.url}/sign-in?token={auth.new_sign_in(Store(running.data))}"
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(link).status_code == 200
        assert browser.get(f"{running.url}/api/runs").status_code == 200
        assert browser.get(f"{running.url}/v1/models").status_code == 200
    with httpx.Client(follow_redirects=True) as second:
        second.get(link)
        assert second.get(f"{running.url}/api/runs").status_code == 401


@pytest.mark.parametrize("path", ["/api/runs", "/v1/models", "/gguf/v1/models", "/api/system"])
@pytest.mark.parametrize("credential", [{}, {"Authorization": "Bearer tdm_wrong"}])
def test_nothing_answers_without_a_key(running: stack.Stack, path: str, credential: dict[str, str]) -> None:
    answer = httpx.get(f"{running.url}{path}", headers=credential)
    assert answer.status_code == 401 and answer.json()["error"]["message"]


SET_ONCE = (
    "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Permissions-Policy",
    "X-Request-Id", "Cache-Control", "Content-Type", "Server",
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200), ("/system", 200), ("/keys", 200), ("/nothing", 404), ("/sign-in", 200), ("/health", 200),
        ("/static/app.js", 200), ("/static/nothing.js", 404), ("/api/system", 200), ("/api/nothing", 404),
        ("/v1/models", 200), ("/v1/nothing", 404), ("/gguf/v1/models", None), ("/%ff%00", 400),
    ],
)  # fmt: skip
def test_each_header_is_sent_once_and_the_policy_is_strict(
    running: stack.Stack, key: str, path: str, status: int | None
) -> None:
    """Pages, the API, the other services and errors, of the dashboard and of nginx itself, with a key and without."""
    for headers in ({"Authorization": f"Bearer {key}"}, {}, {"Origin": "https://elsewhere.example"}):
        answer = httpx.get(f"{running.url}{path}", headers={"Accept": "text/html", **headers})
        names = [name.title() for name, _ in answer.headers.multi_items()]
        for name in SET_ONCE:
            least = 0 if name == "Cache-Control" else 1
            assert least <= names.count(name.title()) <= 1, f"{name} of {path}, {answer.status_code}: {names}"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
        assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
        assert not answer.headers.get("Access-Control-Allow-Origin")
        if "Authorization" in headers and status:
            assert answer.status_code == status


def test_a_taken_port_is_named(running: stack.Stack, tmp_path: Path) -> None:
    with pytest.raises(stack.StackError, match=str(running.layout.port)):
        stack.start(ROOT, running.layout.port, folder=tmp_path)


def test_a_second_stack_in_the_folder_is_refused(running: stack.Stack) -> None:
    with pytest.raises(stack.StackError):
        stack.start(ROOT, free_port(), folder=running.layout.folder)
