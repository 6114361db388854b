"""The figures of a benchmark are what the server's delays force, and nothing that a model does spoils those of another."""

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from typing import Any

import httpx
import pytest

from services.trainer import benchmark
from services.trainer.child import Context, Refused, Stopped
from services.trainer.timed import Answer, NoAnswer, ask, figures
from shared import runs
from shared.harmony import Encoder
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.unit import fake_tandem as fake

FIRST, BETWEEN = 0.12, 0.02  # seconds until the first token, and until each other
SLACK = 0.5  # what a busy machine may add to a wait
ASLEEP = (503, {"error": {"message": "The run train-1 has the GPU now.", "code": "asleep"}})


class Server(fake.Tandem):
    """Answers `/v1/completions` with the tokens that are asked for, two in a chunk; counts those who ask at once."""

    def __init__(self) -> None:
        super().__init__(key=None)
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.refusals: dict[str, list[fake.Reply]] = {}  # by model: what the next requests get
        self.routes = {"POST /v1/completions": self.complete}
        self.routes["GET /health"] = {"engine": "abacus", "gpus": [{"name": "RTX 3090"}]}

    def complete(self, request: fake.Request) -> fake.Reply:
        refusals = self.refusals.get(request.body["model"], [])
        return refusals.pop(0) if refusals else self.stream(request.body)

    def stream(self, body: dict[str, Any]) -> Iterator[bytes]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(FIRST)
        for number in range(0, body["max_tokens"], 2):
            time.sleep(2 * BETWEEN if number else 0)
            yield fake_chunk({"choices": [{"text": "1,\u2028"}]})  # it ends a line for str, and not for a server
        with self.lock:
            self.now -= 1
        usage = {"completion_tokens": body["max_tokens"], "prompt_tokens": len(body["prompt"])}
        yield fake_chunk({"choices": [{"text": "", "finish_reason": "length"}]})
        yield fake_chunk({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def fake_chunk(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with fake.serve(Server()) as running:
        yield running


@pytest.fixture
def asked(server: Server) -> Iterator[partial[Answer]]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield partial(ask, client, "shop@v1", check=lambda: None)


@pytest.fixture
def context(settings: Settings, store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run that measures two models, one and three at a time."""
    monkeypatch.setattr(benchmark, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(benchmark, "LEAST_ANSWERS", 3)
    monkeypatch.setitem(benchmark.PATIENCE, "backend_unavailable", 0.05)
    job = Job(models=["shop@v1", "shop-v1-MXFP4.gguf"], concurrency=[1, 3], tokens=4, prompt_tokens=40)
    spec = runs.create(store, "benchmark-1", "benchmark", job)
    return Context(settings.model_copy(update={"inference_url": server.url}), store, spec, 1)


def speeds(context: Context) -> list[dict[str, Any]]:
    return list(runs.all_events(context.store, context.spec.id, "speed"))


def test_an_answer_is_timed_by_its_first_text_and_counted_by_the_server(server: Server, asked: partial[Answer]) -> None:
    answer = asked([1, 2, 3], 20)
    assert answer.tokens == 20  # in ten chunks
    assert FIRST <= answer.first - answer.asked < FIRST + SLACK
    assert 18 * BETWEEN <= answer.last - answer.first < 18 * BETWEEN + SLACK
    sent = server.last("POST").body
    assert (sent["prompt"], sent["temperature"], sent["max_tokens"]) == ([1, 2, 3], 0, 20)
    assert sent["fallback"] is False, "no export is to be measured under its adapter's name"


def test_as_many_are_asked_at_a_time_as_was_wished(server: Server, asked: partial[Answer]) -> None:
    found = benchmark.level(asked, ([number] for number in count()), tokens=10, concurrency=4)
    assert server.most == 4 and found["answered"] == 8 and found["errors"] == 0
    whole = FIRST + 8 * BETWEEN
    assert 8 * 10 / (2 * (whole + SLACK)) < found["tokens_per_second_all"] <= 8 * 10 / (2 * whole)
    assert FIRST <= found["first_token"] <= found["first_token_p95"] < FIRST + SLACK
    assert found["tokens_per_second"] <= 9 / (8 * BETWEEN)


def test_the_median_and_the_95th_percentile_are_of_the_waits() -> None:
    answers = [Answer(asked=0.0, first=float(wait), last=wait + 2.0, tokens=11) for wait in range(1, 22)]
    found = figures(answers)
    assert (found["first_token"], found["first_token_p95"]) == (11.0, 20.0)
    assert found["tokens_per_second"] == 5.0
    assert found["tokens_per_second_all"] == pytest.approx(21 * 11 / 23, rel=1e-3)


def test_what_is_refused_or_breaks_off_is_counted_and_the_others_are_measured(
    server: Server, asked: partial[Answer]
) -> None:
    cut = iter([fake_chunk({"choices": [{"text": "1"}]})])
    told = iter([fake_chunk({"error": {"message": "Out of memory.", "code": "oom"}})])
    server.refusals["shop@v1"] = [(502, "gone"), cut, told]
    found = benchmark.level(asked, ([number] for number in count()), tokens=2, concurrency=1)
    assert (found["answered"], found["errors"]) == (5, 3)
    assert found["error"] == "The inference server answered 502."


def test_nobody_listening_is_said(server: Server) -> None:
    with (
        httpx.Client(base_url="http://127.0.0.1:1", trust_env=False) as client,
        pytest.raises(NoAnswer, match="does not answer"),
    ):
        ask(client, "shop@v1", [1], 2, lambda: None)


def test_loading_is_waited_for_and_kept_out_of_the_figures(
    server: Server, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "LOOK_AGAIN", 0.2)
    server.refusals["shop@v1"] = [ASLEEP, ASLEEP]
    benchmark.benchmark(context)
    own = [row for row in speeds(context) if row["model"] == "shop@v1"]
    assert [row["concurrency"] for row in own] == [1, 3]
    assert all(row["loading"] >= 0.4 + FIRST for row in own)
    assert all(row["first_token"] < FIRST + SLACK and row["engine"] == "abacus on RTX 3090" for row in own)
    said = [event["text"] for event in runs.all_events(context.store, context.spec.id, "log")]
    assert said.count("The run train-1 has the GPU now.") == 1


def test_a_model_that_cannot_answer_is_told_in_its_row_and_fails_no_other(server: Server, context: Context) -> None:
    another = (503, {"error": {"message": "It serves another file.", "code": "backend_unavailable"}})
    server.refusals["shop-v1-MXFP4.gguf"] = [another] * 1000
    benchmark.benchmark(context)
    *measured, away = speeds(context)
    assert [row["answered"] for row in measured] == [3, 3]
    assert (away["model"], away["error"]) == ("shop-v1-MXFP4.gguf", "It serves another file.")
    assert "concurrency" not in away and "first_token" not in away
    status = runs.read_status(context.store, context.spec.id)
    assert (status.step, status.steps) == (4, 4)


def test_a_run_fails_when_no_model_answers(server: Server, context: Context) -> None:
    missing = (404, {"error": {"message": "There is no such model.", "code": "model_not_found"}})
    warm_up = server.stream({"max_tokens": 8, "prompt": [1]})
    server.refusals = {"shop@v1": [missing], "shop-v1-MXFP4.gguf": [warm_up, *[missing] * 6]}
    with pytest.raises(Refused, match="None of the models answered"):
        benchmark.benchmark(context)
    assert [row["error"] for row in speeds(context)] == ["There is no such model."] * 3
    assert [row["step"] for row in speeds(context)] == [2, 3, 4]


def test_a_run_that_is_cancelled_stops_in_the_middle_of_its_answers(context: Context) -> None:
    threading.Timer(0.3, lambda: setattr(context, "stopping", True)).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        benchmark.benchmark(context)
    assert time.monotonic() - began < 3


def test_every_prompt_has_its_length_and_is_new_to_a_cache(encoder: Encoder) -> None:
    found = [ids for seed in (5, 1_000) for ids in islice(benchmark.counting(encoder, 64, seed), 20)]
    assert {len(ids) for ids in found} == {64}
    assert len({tuple(ids[:5]) for ids in found}) == 40
    one, other = encoder.decode(found[0]), encoder.decode(found[20])
    assert one.startswith("200005, 100000, 100001, 100002")
    assert one.partition(",")[2] == other.partition(",")[2]
    assert len(next(benchmark.counting(encoder, 32, seed=5))) == 32
