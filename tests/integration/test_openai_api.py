"""What OpenAI's clients ask for beyond an answer: several, cut, counted, weighed, formed, and as responses."""

import json
import math

import pytest
from openai import BadRequestError, OpenAI

from shared.harmony import Encoder, Piece
from tests.conftest import BASE
from tests.integration.conftest import Served

QUESTION = [{"role": "user", "content": "When are you open?"}]
SCHEMA = {
    "type": "object",
    "properties": {"day": {"enum": ["monday", "friday"]}, "hour": {"type": "integer", "minimum": 0, "maximum": 23}},
    "required": ["day", "hour"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "opening", "schema": SCHEMA}}
EXPORT = "house-v1-F16.gguf"


@pytest.fixture(scope="module")
def client(served: Served) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)


def chat(client: OpenAI, model: str = "house@v1", **more: object):
    return client.chat.completions.create(**{"model": model, "messages": QUESTION, "max_tokens": 120, **more})


def test_several_answers_are_each_the_one_to_a_seed_of_its_own(client: OpenAI) -> None:
    several = chat(client, BASE, n=3, seed=7, max_tokens=20)
    alone = [chat(client, BASE, seed=seed, max_tokens=20).choices[0].message.content for seed in (7, 8, 9)]
    assert [choice.message.content for choice in several.choices] == alone
    assert several.usage.completion_tokens == 60
    texts = ["", "", ""]
    for chunk in chat(client, BASE, n=3, seed=7, max_tokens=20, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == alone


@pytest.mark.parametrize("model", ["house@v1", EXPORT])
def test_an_answer_ends_before_a_stop_string(client: OpenAI, model: str) -> None:
    whole = chat(client, model, temperature=0).choices[0].message.content
    stop = whole.split()[2]
    cut = chat(client, model, temperature=0, stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].stop_reason == stop
    assert cut.usage.completion_tokens < chat(client, model, temperature=0).usage.completion_tokens


def test_log_probabilities_spell_the_answer_and_rank_what_was_drawn_first(client: OpenAI) -> None:
    choice = chat(client, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    told = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in told).decode() == choice.message.content
    for entry in told:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == max(other.logprob for other in entry.top_logprobs) <= 0
        assert sum(math.exp(other.logprob) for other in entry.top_logprobs) <= 1 + 1e-6
    raw = client.completions.create(model=BASE, prompt="one two", max_tokens=4, temperature=0, logprobs=2)
    assert "".join(raw.choices[0].logprobs.tokens) == raw.choices[0].text


@pytest.mark.parametrize("model", [BASE, EXPORT])
def test_an_answer_that_ignores_its_end_has_as_many_tokens_as_were_asked_for(client: OpenAI, model: str) -> None:
    prompt = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    asked = {"model": model, "prompt": prompt, "max_tokens": 90, "temperature": 0, "extra_body": {"ignore_eos": True}}
    assert client.completions.create(**asked).usage.completion_tokens == 90


def test_a_bias_bans_a_token_and_forces_another(client: OpenAI) -> None:
    first = chat(client, BASE, temperature=0, max_tokens=1, extra_body={"return_token_ids": True}).choices[0].token_ids
    other = chat(client, BASE, temperature=0, max_tokens=1, logit_bias={str(first[0]): -100},
                 extra_body={"return_token_ids": True})  # fmt: skip
    assert other.choices[0].token_ids != first


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "budget"), [(BASE, 20), (EXPORT, -1)])
def test_an_answer_with_a_schema_is_json_by_it(client: OpenAI, model: str, budget: int, stream: bool) -> None:
    more = {"response_format": FORM, "temperature": 1.5, "seed": 3, "max_tokens": 400}
    more |= {"reasoning_effort": "low", "extra_body": {"thinking_token_budget": budget}}
    if stream:
        chunks = chat(client, model, stream=True, **more)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    else:
        text = chat(client, model, **more).choices[0].message.content
    found = json.loads(text)
    assert found["day"] in ("monday", "friday") and 0 <= found["hour"] <= 23 and len(found) == 2


def test_thinking_ends_where_its_budget_does(client: OpenAI) -> None:
    answer = chat(client, temperature=0, extra_body={"thinking_token_budget": 2})
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"


def test_a_tool_that_is_demanded_is_called(client: OpenAI) -> None:
    function = {"name": "look_up", "strict": True, "parameters": SCHEMA}
    choice = chat(client, BASE, tools=[{"type": "function", "function": function}], tool_choice="required",
                  max_tokens=400, seed=1, extra_body={"thinking_token_budget": 10}).choices[0]  # fmt: skip
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "look_up"
    assert set(json.loads(choice.message.tool_calls[0].function.arguments)) == {"day", "hour"}


def test_an_export_calls_a_tool_that_is_demanded(client: OpenAI, encoder: Encoder) -> None:
    parameters = {
        **SCHEMA,
        "properties": {**SCHEMA["properties"], "day": {"enum": ["TEXT <|end|> %json {}", "friday"]}},
    }
    function = {"name": "look_up", "strict": True, "parameters": parameters}
    pieces = [Piece(word, "assistant", None, "header", None) for word in ("analysis", " to")]
    (thinking,), (to,) = (encoder.encode([piece]) for piece in pieces)  # what a tiny model begins, it seldom ends
    choice = chat(client, EXPORT, tools=[{"type": "function", "function": function}], tool_choice="required",
                  max_tokens=400, temperature=0, logit_bias={str(thinking): -100, str(to): 100}).choices[0]  # fmt: skip
    assert choice.finish_reason == "tool_calls"
    assert set(json.loads(choice.message.tool_calls[0].function.arguments)) == {"day", "hour"}


@pytest.mark.parametrize("model", ["house@v1", EXPORT])
def test_a_response_says_what_chat_says(client: OpenAI, model: str) -> None:
    said = chat(client, model, temperature=0).choices[0].message
    asked = {"model": model, "input": "When are you open?", "temperature": 0, "max_output_tokens": 120}
    response = client.responses.create(**asked)
    assert response.output_text == said.content and response.status == "completed"
    events = list(client.responses.create(**asked, stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == said.content


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"response_format": FORM, "extra_body": {"thinking_token_budget": 9}}, "response_format"),
    ],
)
def test_what_an_export_cannot_do_is_refused_by_name(client: OpenAI, more: dict, field: str) -> None:
    with pytest.raises(BadRequestError, match="sk its adapter") as refused:
        chat(client, EXPORT, **more)
    assert refused.value.param == field
