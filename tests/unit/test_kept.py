"""An answer is given once more where the request allows no other, token for token; one that was cut never is."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from services.inference.engine import Sampling, Token, Weights
from services.inference.kept import Answers, Remembering
from shared.harmony import Encoder
from shared.settings import Settings
from tests.conftest import BASE
from tests.unit.exposition import inference, parse

BYTES = 100_000
GREEDY = {"temperature": 0}


class Counting:
    """An engine whose every answer is another one: it says how often it was asked, then stops."""

    name = "counting"

    def __init__(self) -> None:
        self.asked, self.breaks = 0, False

    async def generate(self, prompt, sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        self.asked += 1
        top = ((500, -0.1), (501, -2.5)) if sampling.logprobs else ()
        yield [Token(1000 + self.asked, -0.1 if top else None, top)]
        if self.breaks:
            raise httpx.ReadError("broken")
        yield [Token(1001), Token(sampling.stops[0] if sampling.stops else 1002)]


@pytest.fixture
def engine() -> Counting:
    return Counting()


@pytest.fixture
def client(settings: Settings, encoder: Encoder, engine: Counting) -> TestClient:
    settings = settings.model_copy(update={"response_cache_bytes": BYTES})
    return TestClient(inference(settings, encoder, engine), raise_server_exceptions=False)


def ask(client: TestClient, **more: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": BASE, "prompt": [1, 2, 3], **GREEDY, **more})


def text(answer: httpx.Response) -> str:
    """What an answer says, streamed or whole."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] or [answer.text]
    return "".join(choice["text"] for line in lines for choice in json.loads(line)["choices"])


def hit(answer: httpx.Response) -> bool:
    return answer.headers.get("X-Tandem-Cache") == "hit"


def test_an_equal_request_has_the_same_answer_streamed_or_whole(client: TestClient, engine: Counting) -> None:
    before = parse(client.get("/metrics").text)
    answers = [ask(client), ask(client), ask(client, stream=True), ask(client, deadline=5, seed=3)]
    assert len({text(answer) for answer in answers}) == 1 and engine.asked == 1
    assert [hit(answer) for answer in answers] == [False, True, True, True]
    assert answers[0].json()["usage"] == answers[1].json()["usage"]
    after = parse(client.get("/metrics").text)
    counted = ("response_cache_queries", "response_cache_hits", "requests", "generation_tokens")
    grown = [sum(after[f"tandem_{n}_total"].values()) - sum(before[f"tandem_{n}_total"].values()) for n in counted]
    assert grown == [4, 3, 4, 3], "tokens that were given once more were not generated"


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": [1, 2, 4]}, {"max_tokens": 15}, {"logprobs": 1}, {"logit_bias": {"7": 1}}, {"temperature": 1, "seed": 1},
    ],
    ids=["prompt", "limit", "logprobs", "bias", "seed"],
)  # fmt: skip
def test_what_differs_in_anything_that_decides_the_answer_is_asked_anew(
    client: TestClient, engine: Counting, more: dict[str, Any]
) -> None:
    ask(client)
    assert not hit(ask(client, **more)) and engine.asked == 2
    assert hit(ask(client, **more)) and engine.asked == 2


def test_a_seed_repeats_and_chance_does_not(client: TestClient, engine: Counting) -> None:
    assert [hit(ask(client, temperature=1, seed=seed)) for seed in (1, 1, 2)] == [False, True, False]
    assert not hit(ask(client, temperature=1)) and not hit(ask(client, temperature=1))
    assert not hit(ask(client, ignore_eos=True)) and not hit(ask(client, ignore_eos=True)), "it measures the speed"
    several = ask(client, n=2, temperature=1, seed=1)
    assert hit(several) and len({choice["text"] for choice in several.json()["choices"]}) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_off_is_not_kept(client: TestClient, engine: Counting, stream: bool) -> None:
    engine.breaks = True
    ask(client, stream=stream)
    engine.breaks = False
    whole = ask(client)
    assert not hit(whole) and whole.json()["choices"][0]["finish_reason"] == "stop"


def test_an_answer_that_a_stop_string_cut_is_not_kept(client: TestClient, encoder: Encoder) -> None:
    assert ask(client, stop=[encoder.decode([1001])]).json()["choices"][0]["stop_reason"]
    assert not hit(ask(client))


def test_an_answer_whose_reader_left_is_not_kept(engine: Counting) -> None:
    answers = Answers(BYTES)

    async def leave() -> None:
        stream = Remembering(engine, answers).generate([1], Sampling(9, 0.0, stops=(2,)), Weights("base", "0"))
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert engine.asked == 1 and answers.size == 0


def test_the_answer_not_asked_for_longest_goes_first() -> None:
    answers = Answers(BYTES)
    answers.keep(b"a", [Token(1)])
    answers.room = 3 * answers.size
    for name in (b"a", b"b", b"c"):
        answers.keep(name, [Token(1)])
    assert answers.find(b"a") and answers.size <= answers.room
    answers.keep(b"d", [Token(2)])
    assert [bool(answers.find(name)) for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    answers.keep(b"e", [Token(number) for number in range(1000)])
    assert answers.find(b"e") is None and answers.find(b"d"), "what has no room at all takes none from others"


def test_log_probabilities_are_kept_as_they_were(client: TestClient) -> None:
    first, again = (ask(client, logprobs=2) for _ in range(2))
    assert hit(again) and again.json()["choices"] == first.json()["choices"]


def test_without_room_nothing_is_kept(settings: Settings, encoder: Encoder, engine: Counting) -> None:
    client = TestClient(inference(settings, encoder, engine))
    assert not hit(ask(client)) and not hit(ask(client)) and engine.asked == 2
