"""A tool is called, its result goes back, and the model answers: the whole round with OpenAI's client, a model by script."""

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI

from services.inference.engine import Token
from shared.harmony import Encoder
from shared.settings import Settings
from tests.conftest import BASE
from tests.unit.exposition import inference
from tests.unit.test_harmony import stream

QUESTION = {"role": "user", "content": "How is the weather in Köln?"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
CALL = (
    "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant"
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Köln"}<|call|>'
)
ANSWER = "<|channel|>final<|message|>It rains in Köln.<|return|>"


class Scripted:
    """An engine that says what the script has next, and keeps what it was asked."""

    name = "scripted"

    def __init__(self, encoder: Encoder, *script: str) -> None:
        self.encoder, self.script = encoder, list(script)
        self.prompts: list[str] = []

    async def generate(self, prompt, sampling, weights) -> AsyncIterator[list[Token]]:
        self.prompts.append(self.encoder.decode(prompt))
        for token in stream(self.encoder, self.script.pop(0)):
            yield [Token(token)]


@pytest.fixture
def engine(encoder: Encoder) -> Scripted:
    return Scripted(encoder, CALL, ANSWER)


@pytest.fixture
def client(settings: Settings, encoder: Encoder, engine: Scripted) -> Iterator[OpenAI]:
    app = TestClient(inference(settings, encoder, engine))

    def answer(request: httpx.Request) -> httpx.Response:
        found = app.request(request.method, request.url.path, content=request.content, headers=dict(request.headers))
        return httpx.Response(found.status_code, headers={"Content-Type": found.headers["content-type"]},
                              content=found.content)  # fmt: skip

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        yield OpenAI(base_url="http://tandem/v1", api_key="none", http_client=http, max_retries=0)


def test_a_result_goes_back_to_the_call_it_answers(client: OpenAI, engine: Scripted) -> None:
    first = client.chat.completions.create(model=BASE, messages=[QUESTION], tools=[WEATHER]).choices[0]
    (call,) = first.message.tool_calls
    assert (first.finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Köln"}

    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    again = [QUESTION, first.message.model_dump(), result]
    second = client.chat.completions.create(model=BASE, messages=again, tools=[WEATHER]).choices[0]
    assert (second.finish_reason, second.message.content) == ("stop", "It rains in Köln.")

    begun, asked_again = engine.prompts
    turn = (
        "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant to=functions.get_weather"
        '<|channel|>commentary json<|message|>{"city": "Köln"}<|call|>'
        '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"rain"<|end|><|start|>assistant'
    )
    assert asked_again == begun + turn, "the thinking is kept until the answer, and the prompt only grows"


def test_a_streamed_call_is_the_call_in_pieces(client: OpenAI) -> None:
    chunks = client.chat.completions.create(model=BASE, messages=[QUESTION], tools=[WEATHER], stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    parts = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert (parts[0].function.name, parts[0].type, bool(parts[0].id)) == ("get_weather", "function", True)
    assert json.loads("".join(part.function.arguments or "" for part in parts)) == {"city": "Köln"}
    assert {part.index for part in parts} == {0} and choices[-1].finish_reason == "tool_calls"
    assert not any(choice.delta.content for choice in choices)


def test_where_no_tool_may_be_called_the_model_knows_of_none(client: OpenAI, engine: Scripted) -> None:
    client.chat.completions.create(model=BASE, messages=[QUESTION], tools=[WEATHER], tool_choice="none")
    assert "get_weather" not in engine.prompts[0]
