"""While the engine cannot answer for an adapter, an export of that very adapter does, and says so; else nothing does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.inference.engine import Busy, Sampling, Token, Unavailable, Weights
from services.inference.residence import Away
from shared import registry
from shared.harmony import Encoder
from shared.settings import Settings
from shared.store import Store
from tests.conftest import BASE
from tests.unit.exposition import inference
from tests.unit.test_registry import adapter, export

EXPORT = "house-v1-F16.gguf"
SCHEMA = {"type": "json_object"}


class Stub:
    """An engine that says one token, or fails before it or after it."""

    def __init__(self, name: str) -> None:
        self.name, self.fails, self.breaks, self.slow = name, None, None, False
        self.asked: list[str] = []

    async def generate(self, prompt, sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        self.asked.append(weights.name)
        if self.fails:
            raise self.fails
        if self.slow:
            await asyncio.sleep(60)
        yield [Token(1000)]
        if self.breaks:
            raise self.breaks
        yield [Token(sampling.stops[0])]


class Scene:
    def __init__(self, settings: Settings, encoder: Encoder) -> None:
        self.engine, self.gguf = Stub("engine"), Stub("llama.cpp")
        self.client = TestClient(inference(settings, encoder, self.engine, self.gguf))
        self.engine.fails = Away("The run train-1 has the GPU now.", "asleep", 30)

    def ask(self, model: str = "house@v1", **more: Any) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
        return self.client.post("/v1/chat/completions", json=body)


@pytest.fixture
def scene(settings: Settings, store: Store, encoder: Encoder) -> Scene:
    adapter(store)
    export(store, EXPORT)
    return Scene(settings, encoder)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["house@v1", "production"])
def test_an_export_answers_for_its_adapter_and_says_so(scene: Scene, store: Store, model: str, stream: bool) -> None:
    registry.point_alias(store, "production", "house@v1")
    answer = scene.ask(model, stream=stream)
    assert answer.status_code == 200 and scene.gguf.asked == [EXPORT]
    names = ("X-Tandem-Model", "X-Tandem-SHA256", "X-Tandem-Backend")
    assert [answer.headers[name] for name in names] == [EXPORT, "2", "llama.cpp"]


def test_where_the_engine_answers_the_export_is_left_alone(scene: Scene) -> None:
    scene.engine.fails = None
    answer = scene.ask()
    assert (answer.headers["X-Tandem-Model"], answer.headers["X-Tandem-Backend"]) == ("house@v1", "engine")
    assert not scene.gguf.asked


@pytest.mark.parametrize(
    "asked",
    [
        {"model": BASE},
        {"fallback": False},
        {"logprobs": True},
        {"response_format": SCHEMA, "thinking_token_budget": 5},
    ],
    ids=["the base", "no fallback", "log-probabilities", "JSON after capped thinking"],
)
def test_nothing_answers_in_place_of_what_it_is_not_or_does_what_it_cannot(scene: Scene, asked: dict) -> None:
    answer = scene.ask(**asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asleep")
    assert answer.headers["Retry-After"] == "30" and not scene.gguf.asked


def test_an_export_of_another_adapter_does_not_answer(scene: Scene, store: Store) -> None:
    card = registry.export_card(store, EXPORT)
    staged = store.exports() / ".staged"
    staged.write_bytes(b"GGUF")
    registry.publish_export(store, staged, card.model_copy(update={"adapter_sha256": "9", "sha256": "3"}))
    assert scene.ask().status_code == 503 and not scene.gguf.asked


def test_where_the_export_cannot_either_the_engines_word_is_told(scene: Scene) -> None:
    scene.gguf.fails = Unavailable("The GGUF server does not answer.")
    answer = scene.ask()
    assert answer.json()["error"]["code"] == "asleep" and scene.gguf.asked == [EXPORT]


def test_a_full_queue_is_told_and_not_passed_on(scene: Scene) -> None:
    scene.engine.fails = Busy(128)
    assert scene.ask().status_code == 429 and not scene.gguf.asked


def test_who_has_waited_too_long_is_told_so(scene: Scene) -> None:
    scene.engine.fails, scene.engine.slow = None, True
    assert scene.ask(deadline=0.1).status_code == 504 and not scene.gguf.asked


def test_an_answer_that_had_begun_breaks_off(scene: Scene) -> None:
    scene.engine.fails, scene.engine.breaks = None, Away("The run train-1 has the GPU now.", "asleep", 30)
    answer = scene.ask(stream=True)
    assert '"code": "asleep"' in answer.text and answer.text.endswith("data: [DONE]\n\n")
    assert not scene.gguf.asked
