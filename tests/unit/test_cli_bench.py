"""`tandem bench` asks for a benchmark and prints its rows as they come."""

import json
import re

import pytest

from services.cli import show
from services.dashboard.api import models
from tests.unit import fake_tandem as fake

ID = "benchmark-20260102-030405-3f2a"
ROW = {"time": fake.NOW, "model": "shop@v1", "sha256": "dd", "engine": "unsloth", "loading": 1.5, "concurrency": 1,
       "prompt_tokens": 128, "tokens": 64, "answered": 8, "errors": 0, "error": None, "first_token": 0.0504,
       "first_token_p95": 0.0809, "tokens_per_second": 182.2, "tokens_per_second_all": 171.0}  # fmt: skip
MANY = ROW | {
    "concurrency": 16,
    "errors": 2,
    "error": "It broke off.",
    "first_token": 1.234,
    "tokens_per_second": 12.34,
}
AWAY = {"time": fake.NOW, "model": "shop-v1-MXFP4.gguf", "prompt_tokens": 128, "tokens": 64, "answered": 0,
        "error": "It serves another file."}  # fmt: skip
JOB = {"models": ["shop@v1", "shop-v1-MXFP4.gguf"], "concurrency": [1, 16], "tokens": 64, "prompt_tokens": 128}
DONE = fake.RUN | {
    "id": ID, "kind": "benchmark", "name": None, "dataset": None, "recipe_name": None, "models": JOB["models"],
    "state": "succeeded", "ended": fake.NOW, "result": "171 tokens a second at most (shop@v1)", "proof": None,
    "spec": {"id": ID, "kind": "benchmark", "created": fake.NOW, "job": JOB},
    "speed": [models.Speed.model_validate(row).model_dump() for row in (ROW, MANY, AWAY)],
}  # fmt: skip
EVENTS = [
    {"time": fake.NOW, "type": "status", "state": "running", "worker": "gpu0", "attempt": 1},
    *({"type": "speed", **row} for row in (ROW, MANY, AWAY)),
    {"time": fake.NOW, "type": "status", "state": "succeeded", "result": DONE["result"]},
]

pytestmark = pytest.mark.usefixtures("person")


@pytest.fixture
def tandem():
    full = fake.full()
    full.routes |= {
        "POST /api/runs": (201, DONE | {"state": "queued", "speed": []}),
        f"GET /api/runs/{ID}": DONE,
        f"GET /api/runs/{ID}/events/stream": lambda request: fake.sse(EVENTS),
    }
    with fake.serve(full) as running:
        yield running


def test_the_fake_has_the_shape_of_the_dashboard():
    models.Run.model_validate(DONE)


def test_what_is_asked_for_is_sent_and_what_is_not_is_left_to_tandem(run, tandem):
    run("bench", "shop@v1", "production", "--concurrency", "1,16", "--tokens", "64", "--prompt-tokens", "128")
    assert tandem.last("POST").body == {
        "kind": "benchmark", "models": ["shop@v1", "production"], "concurrency": [1, 16], "tokens": 64, "prompt_tokens": 128,
    }  # fmt: skip
    run("bench", "--no-follow")
    assert tandem.last("POST").body == {"kind": "benchmark"}
    assert "as in --concurrency 1,4,16" in run("bench", "--concurrency", "1;4", code=1)


def test_rows_are_told_as_they_come_and_all_of_them_at_the_end(run):
    said = run("bench")
    assert "shop@v1, 1 at a time · first token 50 ms · 182 tok/s each · 171 together" in said
    assert "12.3 tok/s each · 171 together · 2 failed: It broke off." in said
    assert "shop-v1-MXFP4.gguf did not answer: It serves another file." in said
    _, _, table = said.partition("Prompts of 128 tokens, answers of 64.")
    assert re.search(r"shop@v1 +1 +50 ms +81 ms +182 +171", table)
    assert re.search(r"shop@v1 +16 +1\.23 s +81 ms +12\.3 +171 +2\n +It broke off\.", table)
    assert "shop@v1 began its first answer after 1.50 s, which is in no figure." in table


def test_in_a_terminal_the_table_fills_in_place(run, monkeypatch):
    monkeypatch.setattr(show.out, "_force_terminal", True)
    said = run("bench")
    assert "together" in said and "did not answer" not in said
    assert re.search(r"shop@v1 .*16.*1\.23 s", said) and "Prompts of 128 tokens" in said


def test_json_is_what_was_measured_or_what_was_queued(run):
    assert len(json.loads(run("bench", "--json"))["speed"]) == 3
    assert json.loads(run("bench", "--json", "--no-follow"))["state"] == "queued"


def test_a_job_is_shown_with_its_table(run, tandem):
    assert re.search(r"shop@v1 +1 +50 ms", run("jobs", "show", ID))
    tandem.page("/api/runs", [DONE])
    assert "shop@v1, shop-v1-MXFP4.gguf" in run("jobs")
