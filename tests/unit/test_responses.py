"""The Responses API says what chat says, in items and events that OpenAI's own package understands."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from services.inference.protocol import ChatRequest
from services.inference.response_events import Event, ResponseStream, sse, usage
from services.inference.responses import ResponsesRequest
from shared.harmony import Delta, Encoder, Parser
from tests.harmony_streams import cases
from tests.unit.test_harmony import stream

WEATHER = {"type": "function", "name": "get_weather", "description": "Of a city.", "strict": False, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}  # fmt: skip
TURN = (
    "<|channel|>analysis<|message|>They want the weather.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>Let me look.<|end|>"
    "<|start|>assistant<|channel|>analysis<|message|>In Köln.<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Köln"}<|call|>'
)
ANSWER = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>It rains, 日本 🙂.<|return|>"
CASES = cases()
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
USED = usage(prompt=9, cached=4, completion=7, reasoning=3)


def asked(**more: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"model": "m", "input": "How is it?", **more})


def told(encoder: Encoder, marked: str, request: ResponsesRequest | None = None) -> tuple[list[Event], ResponseStream]:
    """The events of an answer that a model generated, and the response that they add up to."""
    made, parser = ResponseStream(request or asked(), "low"), Parser(encoder)
    events = made.begin()
    for token in stream(encoder, marked):
        events += [event for delta in parser.feed(token) for event in made.feed(delta)]
    events += [event for delta in parser.finish() for event in made.feed(delta)]
    return events + made.finish(parser.message()["finish_reason"], USED), made


def texts(response: dict[str, Any], kind: str) -> list[str]:
    return [item["content"][0]["text"] for item in response["output"] if item["type"] == kind]


# ---- what is asked


def test_a_text_is_a_question() -> None:
    request = asked(instructions="Be brief.", max_output_tokens=9, reasoning={"effort": "high"}).chat()
    plain = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "How is it?"}]
    expected = ChatRequest(model="m", messages=plain, max_tokens=9, reasoning_effort="high")
    assert request.conversation() == expected.conversation()
    assert (request.max_tokens, request.effort) == (9, "high")


def test_items_become_the_same_conversation_as_messages() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "How is the weather in Köln and Bonn?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Two calls."}]},
        {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "phase": "commentary",
         "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "get_weather", "arguments": '{"city":"Köln"}'},
        {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "get_weather", "arguments": '{"city":"Bonn"}'},
        {"type": "function_call_output", "call_id": "c2", "output": "sun"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "rain"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "One more."}]},
        {"type": "function_call", "call_id": "c3", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c3", "output": "fog"},
    ]  # fmt: skip

    def call(ident: str, arguments: str) -> dict[str, Any]:
        return {"id": ident, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}

    messages = [
        {"role": "user", "content": "How is the weather in Köln and Bonn?"},
        {"role": "assistant", "content": "I look.", "reasoning": "Two calls.",
         "tool_calls": [call("c1", '{"city":"Köln"}'), call("c2", '{"city":"Bonn"}')]},
        {"role": "tool", "tool_call_id": "c2", "content": "sun"},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "reasoning": "One more.", "tool_calls": [call("c3", "{}")]},
        {"role": "tool", "tool_call_id": "c3", "content": "fog"},
    ]  # fmt: skip
    nested = {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
    expected = ChatRequest(model="m", messages=messages, tools=[nested]).conversation()
    assert asked(input=items, tools=[WEATHER]).chat().conversation() == expected


def test_schema_choice_and_sampling_reach_the_chat_request() -> None:
    shape = {"type": "json_schema", "name": "place", "schema": {"type": "object", "default": None}}
    more = {"temperature": 0.5, "top_p": 0.5, "stop": "x", "top_logprobs": 2, "thinking_token_budget": 5}
    request = asked(text={"format": shape, "verbosity": "low"}, tools=[WEATHER], tool_choice=WEATHER, **more).chat()
    assert request.must_call and "functions.get_weather" in (request.grammar or "")
    assert request.conversation()["response_format"]["schema"] == {"type": "object", "default": None}
    assert (request.temperature, request.top_p, request.stop, request.thinking_token_budget) == (0.5, 0.5, ["x"], 5)
    assert (request.logprobs, request.top_logprobs) == (True, 2)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type cannot be 'item_reference'"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].tool_calls[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": [{"type": "reasoning", "content": [{"type": "picture"}]}]}, "input[0].content"),
        ({"previous_response_id": "resp_1"}, "send the whole conversation as input"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "only functions"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "b"}}}}, "at /: Invalid type: b"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as refused:
        asked(**more).chat()
    assert says in str(refused.value)


def test_what_changes_nothing_is_taken() -> None:
    assert asked(store=True, user="ada", include=["reasoning.encrypted_content"], truncation="auto", background=False)


# ---- what is told


@pytest.mark.parametrize("name", ["answer", "call", *CASES])
def test_openais_types_read_every_event_and_the_whole(name: str, encoder: Encoder) -> None:
    marked = CASES[name].stream if name in CASES else {"answer": ANSWER, "call": TURN}[name]
    events, made = told(encoder, marked, asked(tools=[WEATHER]))
    assert [EVENT.validate_python(event).type for event in events] == [event["type"] for event in events]
    assert Response.model_validate(made.response).to_dict(exclude_unset=True) == made.response
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_was_said_is_lost(name: str, encoder: Encoder) -> None:
    case = CASES[name]
    _, made = told(encoder, case.stream)
    for kind, text in (("reasoning", case.reasoning), ("message", case.content)):
        assert "".join(texts(made.response, kind)).replace("\n\n", "") == text.replace("\n\n", "")
    called = [[i["name"], i["arguments"]] for i in made.response["output"] if i["type"] == "function_call"]
    assert called == case.calls


def test_a_turn_comes_in_items_in_the_order_in_which_it_was_said(encoder: Encoder) -> None:
    _, made = told(encoder, TURN)
    assert [item["type"] for item in made.response["output"]] == ["reasoning", "message", "reasoning", "function_call"]
    thought, preamble, again, call = made.response["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "They want the weather."}]
    assert (preamble["phase"], preamble["content"][0]["text"]) == ("commentary", "Let me look.")
    assert again["content"][0]["text"] == "In Köln."
    assert (call["name"], call["arguments"]) == ("get_weather", '{"city": "Köln"}')
    assert made.response["status"] == "completed" and made.response["usage"] == USED
    assert {item["status"] for item in made.response["output"]} == {"completed"}


def test_events_come_in_openais_order(encoder: Encoder) -> None:
    events, _ = told(encoder, "<|channel|>final<|message|>Yes<|return|>")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    events, _ = told(encoder, " to=functions.f<|channel|>commentary json<|message|>{}<|call|>")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done", "completed",
    ]  # fmt: skip


def test_an_answer_that_was_cut_is_incomplete(encoder: Encoder) -> None:
    events, made = told(encoder, "<|channel|>final<|message|>It ra")
    assert events[-1]["type"] == "response.incomplete" and made.response["status"] == "incomplete"
    assert made.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert made.response["output"][-1]["status"] == "incomplete"


def test_an_answer_that_broke_off_has_failed_and_says_why() -> None:
    made = ResponseStream(asked(), "low")
    events = [*made.begin(), *made.feed(Delta("final", "It ra")), *made.fail("The run needs the GPU.")]
    assert all(EVENT.validate_python(event) for event in events)
    last = Response.model_validate(events[-1]["response"])
    assert (last.status, last.error and last.error.message) == ("failed", "The run needs the GPU.")
    assert last.output[0].status == "incomplete"


def test_log_probabilities_are_told_with_their_text() -> None:
    made = ResponseStream(asked(), "low")
    entry = {"token": "Yes", "logprob": -0.5, "bytes": [89, 101, 115], "top_logprobs": []}
    *_, event = made.feed(Delta("final", "Yes"), [entry])
    assert event["logprobs"] == [entry] == made.output[0]["content"][0]["logprobs"]
    made.finish("stop", USED)
    assert Response.model_validate(made.response).output[0].content[0].logprobs[0].logprob == -0.5


_CHANNELS = st.sampled_from(["analysis", "commentary", "final"])


@settings(max_examples=100, deadline=None)
@given(said=st.lists(st.tuples(_CHANNELS, st.text("ab\n", min_size=1, max_size=4)), max_size=8))
def test_deltas_and_the_whole_say_the_same(said: list[tuple[Any, str]]) -> None:
    made = ResponseStream(asked(), "low")
    events = made.begin() + [event for channel, text in said for event in made.feed(Delta(channel, text))]
    events += made.finish("stop", USED)
    for place, item in enumerate(made.output):
        deltas = [e["delta"] for e in events if e["type"].endswith("_text.delta") and e["output_index"] == place]
        (done,) = (e["item"] for e in events if e["type"].endswith("item.done") and e["output_index"] == place)
        assert "".join(deltas) == item["content"][0]["text"] == done["content"][0]["text"]
    assert events[-1]["response"] == json.loads(json.dumps(made.response))


# ---- with OpenAI's client


class Place(BaseModel):
    city: str
    rain: bool


@pytest.fixture
def client(encoder: Encoder) -> Iterator[tuple[OpenAI, list[ResponsesRequest]]]:
    """A client of a server whose model calls the weather, and answers once it has been told."""
    seen: list[ResponsesRequest] = []

    def answer(request: httpx.Request) -> httpx.Response:
        try:
            seen.append(ResponsesRequest.model_validate_json(request.content))
        except ValidationError as refused:
            return httpx.Response(400, json={"error": {"message": str(refused)}})
        answered = any(message["role"] == "tool" for message in seen[-1].chat().conversation()["messages"])
        final = '<|channel|>final<|message|>{"city": "Köln", "rain": true}<|return|>'
        events, made = told(encoder, final if answered else TURN, seen[-1])
        if not seen[-1].stream:
            return httpx.Response(200, json=made.response)
        return httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, content="".join(map(sse, events)).encode()
        )

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        yield OpenAI(base_url="http://tandem/v1", api_key="none", http_client=http, max_retries=0), seen


def test_a_tool_is_called_and_its_result_is_answered_by_schema(client) -> None:
    """The turns as a client writes them: what came goes back as it is, with the result of the call."""
    openai, seen = client
    conversation: list[Any] = [{"role": "user", "content": "Does it rain in Köln?"}]
    first = openai.responses.create(model="m", input=conversation, tools=[WEATHER])
    (call,) = (item for item in first.output if item.type == "function_call")
    assert json.loads(call.arguments) == {"city": "Köln"}
    conversation += first.output
    conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": "It rains."})
    second = openai.responses.parse(model="m", input=conversation, tools=[WEATHER], text_format=Place)
    assert second.output_parsed == Place(city="Köln", rain=True)
    _, turn, result = seen[-1].chat().conversation()["messages"]
    assert (turn["content"], turn["thinking"]) == ("Let me look.", "They want the weather.\n\nIn Köln.")
    assert turn["tool_calls"][0]["id"] == result["tool_call_id"] and result["content"] == "It rains."


def test_a_stream_adds_up_to_what_comes_without_one(client) -> None:
    openai, _ = client
    with openai.responses.stream(model="m", input="Does it rain?", tools=[WEATHER]) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    whole = openai.responses.create(model="m", input="Does it rain?", tools=[WEATHER])
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert [item.type for item in final.output] == [item.type for item in whole.output]
    assert final.output[-1].arguments == whole.output[-1].arguments
    assert final.usage == whole.usage
