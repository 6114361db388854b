"""An answer is what its tokens say, up to a stop string, with its thinking capped, however the tokens come."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.inference.answer import Answer, Said
from services.inference.protocol import ChatRequest
from shared.harmony import Encoder
from tests.harmony_streams import cases
from tests.unit.test_harmony import stream

CASES = cases()
THOUGHT = "<|channel|>analysis<|message|>one two STOP three"
NEXT = "<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


def asked(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "?"}], **more})


def answered(encoder: Encoder, marked: str, **more: Any) -> tuple[Answer, list[Said]]:
    """The answer to a request, and what was sent, when the model generates `marked`."""
    answer, said = Answer(asked(**more), encoder), []
    for token in stream(encoder, marked):
        said += answer.feed(token, -0.5, [(token, -0.5)])
        if answer.over or answer.thought_enough:
            break
    return answer, said + answer.finish()


@pytest.mark.parametrize("name", CASES)
def test_what_is_sent_adds_up_to_the_message(name: str, encoder: Encoder) -> None:
    case = CASES[name]
    answer, said = answered(encoder, case.stream, logprobs=True)
    message = answer.message()
    assert (message["reasoning"], message["content"]) == (case.reasoning, case.content)
    sent = [part.delta for part in said if part.delta.recipient is None]
    assert "".join(delta.text for delta in sent if delta.channel == "analysis") == case.reasoning
    assert "".join(delta.text for delta in sent if delta.channel != "analysis") == case.content


def test_a_stop_string_ends_the_content_and_not_the_thinking(encoder: Encoder) -> None:
    answer, said = answered(encoder, THOUGHT + NEXT + FINAL + "Yes. STOP here.<|return|>", stop=["STOP"])
    assert answer.message()["reasoning"] == "one two STOP three"
    assert answer.message()["content"] == "Yes. " == "".join(s.delta.text for s in said if s.delta.channel == "final")
    assert (answer.over, answer.stop_reason, answer.finish_reason) == (True, "STOP", "stop")


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        (FINAL + "4<|return|>", "stop"),
        (FINAL + "4", "length"),
        (" to=functions.f<|channel|>commentary json<|message|>{}<|call|>", "tool_calls"),
    ],
)
def test_the_reason_of_the_end_is_openais(marked: str, reason: str, encoder: Encoder) -> None:
    answer, _ = answered(encoder, marked, stop=["never"])
    assert (answer.finish_reason, answer.stop_reason, answer.over) == (reason, None, False)


def test_thinking_that_is_spent_goes_over_into_the_answer(encoder: Encoder) -> None:
    answer, said = answered(encoder, THOUGHT, thinking_token_budget=2)
    assert answer.thought_enough and answer.message()["reasoning"] == "one two"
    assert encoder.decode(answer.force()) == NEXT + FINAL and not answer.thought_enough
    for token in stream(encoder, "4<|return|>"):
        said += answer.feed(token)
    assert (answer.message()["content"], answer.finish_reason, answer.thinking.used) == ("4", "stop", 2)
    assert "".join(part.delta.text for part in said) == "one two4"


def test_thinking_is_counted_without_a_cap(encoder: Encoder) -> None:
    answer, _ = answered(encoder, "<|channel|>analysis<|message|>one two three" + NEXT + FINAL + "four five<|return|>")
    assert answer.thinking.used == 3


def test_what_was_begun_is_not_said_again(encoder: Encoder) -> None:
    begun = stream(encoder, THOUGHT + NEXT + FINAL + "It is")
    answer = Answer(asked(stop=["is"]), encoder, begun)
    said = [part for token in stream(encoder, " four<|return|>") for part in answer.feed(token)]
    assert "".join(part.delta.text for part in said) == " four" == answer.message()["content"]
    assert answer.message()["reasoning"] == "" and answer.finish_reason == "stop"


def test_only_the_contents_tokens_have_log_probabilities(encoder: Encoder) -> None:
    call = NEXT + "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    _, said = answered(encoder, THOUGHT + NEXT + "<|channel|>commentary<|message|>Köln 𓂀!" + call, logprobs=True)
    told = [entry for part in said for entry in part.logprobs]
    assert b"".join(bytes(entry["bytes"]) for entry in told).decode() == "Köln 𓂀!"
    assert not any(part.logprobs for part in said if part.delta.channel == "analysis" or part.delta.recipient)
    assert not any(part.logprobs for part in answered(encoder, FINAL + "4")[1])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text("ab .é🙂", max_size=30), stops=st.lists(st.text("ab .é🙂", min_size=1, max_size=4), max_size=3)
)  # fmt: skip
def test_log_probabilities_cover_the_content_that_is_sent(text: str, stops: list[str], encoder: Encoder) -> None:
    """All of it, and no token that lies wholly behind the cut."""
    answer, said = answered(encoder, FINAL + text, stop=stops, logprobs=True)
    sent = answer.message()["content"].encode()
    told = [bytes(entry["bytes"]) for part in said for entry in part.logprobs]
    assert b"".join(told).startswith(sent)
    assert len(b"".join(told[:-1])) < len(sent) or not told
