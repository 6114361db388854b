"""A request is understood, or refused with the field that is wrong and what it may be; never anything else."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.inference.messages import Unreadable
from services.inference.protocol import ChatRequest, CompletionRequest
from services.inference.responses import ResponsesRequest
from shared.harmony import HarmonyError, render

QUESTION = {"role": "user", "content": "What is it?"}
FIND = {"type": "function", "function": {"name": "find", "description": "Looks it up.", "parameters": {
    "type": "object", "properties": {"what": {"type": "string"}}}}}  # fmt: skip
SHOPPING = {"type": "json_schema", "json_schema": {"name": "shopping_list", "description": "What to buy.", "schema": {
    "type": "object", "properties": {"items": {"type": "array", "items": {"type": "string"}}}}}}  # fmt: skip


def chat(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [QUESTION], **more})


def shown(request: ChatRequest) -> str:
    """The prompt that the model gets."""
    rendered = render(request.conversation(), date="2026-01-01", effort=request.effort, generate=True)
    return "".join(piece.text for piece in rendered)


def test_null_is_the_default_of_each_field() -> None:
    sent = {name: None for name in ChatRequest.model_fields if name not in ("model", "messages")}
    assert chat(**sent) == chat()


def test_what_clients_send_and_changes_nothing_is_left_alone() -> None:
    harmless = {"user": "ada", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "prediction": {},
                "modalities": ["text"], "frequency_penalty": 0, "presence_penalty": 0.0, "best_of": 1, "audio": None,
                "ignore_eos": False, "function_call": "auto", "parallel_tool_calls": False}  # fmt: skip
    assert chat(**harmless).model_copy(update={"parallel_tool_calls": True}) == chat()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("n", 9, "less than or equal to 8"),
        ("n", 0, "greater than or equal to 1"),
        ("stop", ["a"] * 17, "at most 16"),
        ("stop", ["a", ""], "none of them empty"),
        ("stop", "a" * 501, "more than 500 characters"),
        ("stop", 3, "a text or a list of texts"),
        ("logit_bias", {"hello": 1}, "token ids, from 0 to 201087"),
        ("logit_bias", {"201088": 1}, "token ids, from 0 to 201087"),
        ("logit_bias", {"5": 101}, "from -100 to 100"),
        ("logit_bias", {"5": True}, "from -100 to 100"),
        ("logit_bias", [5], "maps token ids to numbers"),
        ("top_logprobs", 3, "needs logprobs"),
        ("response_format", {"type": "xml"}, "'text', 'json_object' or 'json_schema'"),
        ("response_format", {"type": "json_schema"}, "is missing"),
        ("tool_choice", "required", "no tools"),
        ("tool_choice", {"type": "function", "function": {"name": "find"}}, "not among the tools"),
        ("tool_choice", "find", '"none", "auto", "required"'),
        ("thinking_token_budget", -2, "greater than or equal to -1"),
        ("deadline", 0, "greater than 0"),
        ("deadline", float("inf"), "finite"),
        ("audio", {"voice": "alloy"}, "text only"),
        ("modalities", ["text", "audio"], "text only"),
        ("web_search_options", {"search_context_size": "low"}, "does not search the web"),
        ("functions", [FIND["function"]], "old name of tools"),
        ("frequency_penalty", 0.5, "send 0"),
        ("repetition_penalty", 1.1, "send 1"),
        ("best_of", 2, "with n"),
        ("guided_json", {"type": "object"}, "as response_format"),
        ("stop_token_ids", [200002], "in stop"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_what_it_may_be(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        chat(**{field: value})
    (problem,) = refused.value.errors()
    assert problem["loc"][0] == field and says in problem["msg"]
    assert not problem["msg"].startswith("Value error")


def test_logprobs_have_their_likeliest_only_when_asked_for() -> None:
    assert chat(logprobs=True, top_logprobs=20).top_logprobs == 20
    assert chat().logprobs is False


@pytest.mark.parametrize(("sent", "stops"), [("END", ["END"]), (["a", "b"], ["a", "b"]), ([], []), (None, [])])
def test_stops_are_one_or_several(sent: Any, stops: list[str]) -> None:
    assert chat(stop=sent).stop == stops


def test_biases_are_numbers_by_token() -> None:
    assert chat(logit_bias={"5": -100, "201087": 0.5}).logit_bias == {5: -100.0, 201087: 0.5}


# ---- the form of the answer


def test_a_schema_constrains_the_answer_and_is_told_to_the_model() -> None:
    request = chat(response_format=SHOPPING, messages=[{"role": "system", "content": "Be brief."}, QUESTION])
    assert '"items": {"type": "array"' in (request.grammar or "")
    told = '# Response Formats\n\n## shopping_list\n\n// What to buy.\n{"type": "object", "properties": {"items"'
    assert f"# Instructions\n\nBe brief.\n\n{told}" in shown(request)
    assert f"}} // namespace functions\n\n{told}" in shown(chat(response_format=SHOPPING, tools=[FIND]))
    assert f"<|start|>developer<|message|>{told}" in shown(chat(response_format=SHOPPING))


def test_any_json_and_plain_text_say_nothing_to_the_model() -> None:
    assert "# Response Formats" not in shown(chat(response_format={"type": "json_object"}))
    assert '"type": "object"' in (chat(response_format={"type": "json_object"}).grammar or "")
    assert chat(response_format={"type": "text"}).grammar is None


def test_a_schema_that_is_wrong_is_refused_with_the_place() -> None:
    wrong = {"name": "a", "schema": {"properties": {"size": {"type": "numbr"}}}}
    with pytest.raises(ValidationError) as refused:
        chat(response_format={"type": "json_schema", "json_schema": wrong})
    (problem,) = refused.value.errors()
    assert problem["loc"] == ("response_format", "json_schema", "schema")
    assert problem["msg"] == "cannot be used at /properties/size: Invalid type: numbr"


# ---- tools


def test_tools_are_shown_to_the_model_unless_none_may_be_called() -> None:
    assert "type find = " in shown(chat(tools=[FIND])) and chat(tools=[FIND]).grammar is None
    assert "find" not in shown(chat(tools=[FIND], tool_choice="none"))


def test_a_tool_may_be_written_flat() -> None:
    assert shown(chat(tools=[{"type": "function", **FIND["function"]}])) == shown(chat(tools=[FIND]))


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "find"}}])
def test_a_call_that_is_demanded_leaves_no_answer(choice: Any) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    request = chat(tools=[FIND, other], tool_choice=choice)
    assert request.must_call and '"final"' not in (request.grammar or "")
    assert ("functions.other" in (request.grammar or "")) is (choice == "required")
    assert "type other" in shown(request), "the model sees all tools, as in a turn without the choice"


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ({"type": "web_search"}, "only functions"),
        ({"type": "function", "function": {}}, "Field required"),
        ({"type": "function", "function": {"name": "no spaces"}}, "match pattern"),
        ({"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": 3}}}}, "no JSON schema"),
        ({"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "o"}}}, "Invalid type"),
        ("find", "Input should be"),
    ],
)
def test_a_tool_that_is_wrong_is_named(tool: Any, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        chat(tools=[FIND, tool])
    (problem,) = refused.value.errors()
    assert problem["loc"][:2] == ("tools", 1) and says in problem["msg"]


def test_a_strict_tool_has_its_arguments_by_schema() -> None:
    strict = {"type": "function", "function": {**FIND["function"], "strict": True}}
    assert '"what": {"type": "string"}' in (chat(tools=[strict]).grammar or "")


# ---- messages


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "wizard", "content": "x"}, "messages[1].role cannot be 'wizard'"),
        ({"role": "user"}, "messages[1].content must be a text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content holds something other than text"),
        ({"role": "user", "content": [{"type": "text", "text": 3}]}, "messages[1].content holds something"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[1].tool_calls[0] is no call"),
        ({"role": "assistant", "tool_calls": "f()"}, "messages[1].tool_calls[0] is no call"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]},
            "messages[1].tool_calls[0].function.arguments must be JSON",
        ),
        ({"role": "assistant", "content": "x", "reasoning": {"a": 1}}, "messages[1].reasoning must be"),
        ({"role": "tool", "content": "x", "tool_call_id": 7}, "messages[1].tool_call_id must be"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(message: dict[str, Any], says: str) -> None:
    with pytest.raises(Unreadable) as refused:
        chat(messages=[QUESTION, message]).conversation()
    assert str(refused.value).startswith(says) and says.startswith(refused.value.param)


def test_raw_text_takes_no_form() -> None:
    with pytest.raises(ValidationError, match="is for chat"):
        CompletionRequest.model_validate({"model": "m", "prompt": "x", "response_format": {"type": "json_object"}})
    assert CompletionRequest.model_validate({"model": "m", "prompt": "x", "logprobs": 5}).logprobs == 5


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(
        ["", "f", "text", "function", "user", "assistant", "tool", "auto", "required", "json_schema", "low", "object"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "role", "content", "text", "name", "function", "arguments", "tool_calls", "json_schema",
                         "schema", "parameters", "properties", "effort", "id", "5", "required", "items", "enum"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"])},
    optional=dict.fromkeys(("content", "tool_calls", "name", "tool_call_id", "reasoning"), _JSON),
)
_TEXT_MESSAGE = st.builds(lambda message, text: {**message, "content": text}, _MESSAGE, st.text(max_size=3))


@settings(max_examples=500, deadline=None)
@given(
    more=st.dictionaries(st.sampled_from(sorted(ChatRequest.model_fields)), _JSON, max_size=3),
    messages=st.lists(_TEXT_MESSAGE | _MESSAGE | _JSON, max_size=3),
)
def test_whatever_is_sent_is_understood_or_refused(more: dict[str, Any], messages: list[Any]) -> None:
    with suppress(ValueError):
        request = ChatRequest.model_validate({"model": "m", "messages": [QUESTION, *messages], **more})
        shown(request)
        request.begun()
        assert request.grammar is None or request.grammar.lstrip().startswith("start:")


_ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "reasoning", "function_call", "function_call_output", "other"])},
    optional=dict.fromkeys(("role", "content", "summary", "call_id", "name", "arguments", "output"), _JSON),
)


@settings(max_examples=300, deadline=None)
@given(
    more=st.dictionaries(st.sampled_from(sorted(ResponsesRequest.model_fields)), _JSON, max_size=3),
    items=st.lists(_ITEM | _MESSAGE | _JSON, max_size=4),
)
def test_whatever_is_sent_as_items_is_understood_or_refused(more: dict[str, Any], items: list[Any]) -> None:
    try:
        request = ResponsesRequest.model_validate({"model": "m", "input": items, **more})
    except ValidationError:
        return
    with suppress(Unreadable, HarmonyError):  # never pydantic's: what it says of the chat request names other fields
        shown(request.chat())
