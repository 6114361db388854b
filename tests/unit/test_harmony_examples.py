"""What of a conversation is learned under each policy, token by token."""

import re

import pytest

from shared.harmony import (
    IGNORED,
    Encoder,
    Example,
    HarmonyError,
    Parser,
    examples,
    render,
)
from tests.unit.test_harmony import CONVERSATIONS, DATE, END, NO_PARAMETERS, RETURN, answer, call, result, user


def learned(example: Example, encoder: Encoder) -> str:
    """Learned stretches, as text, with ~ for what is not learned in between."""
    shown = "".join("~" if label == IGNORED else encoder.decode([label]) for label in example.labels)
    return re.sub("~+", "~", shown)


THREE_TURNS = {
    "messages": [user("a"), answer("A", "first"), user("b"), answer("B"), user("c"), answer("C", "third"), user("d")]
}


def test_each_turn_is_learned_once_and_with_its_thinking(encoder: Encoder) -> None:
    first, last = examples(THREE_TURNS, encoder=encoder, date=DATE)
    assert learned(first, encoder) == (
        "~<|channel|>analysis<|message|>first<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>"
    )
    assert learned(last, encoder) == (
        "~<|channel|>final<|message|>B<|return|>~"
        "<|channel|>analysis<|message|>third<|end|><|start|>assistant<|channel|>final<|message|>C<|return|>"
    )
    assert "first" not in encoder.decode(last.ids)


def test_final_learns_every_answer_and_no_analysis(encoder: Encoder) -> None:
    (example,) = examples(THREE_TURNS, encoder=encoder, date=DATE, policy="final")
    assert learned(example, encoder) == "".join(f"~<|channel|>final<|message|>{x}<|return|>" for x in "ABC")


def test_last_turn_learns_only_the_last(encoder: Encoder) -> None:
    (example,) = examples(THREE_TURNS, encoder=encoder, date=DATE, policy="last_turn")
    assert learned(example, encoder).startswith("~<|channel|>analysis<|message|>third<|end|>")


def test_labels_equal_ids_except_at_the_end_of_an_earlier_answer(encoder: Encoder) -> None:
    (example,) = examples(THREE_TURNS, encoder=encoder, date=DATE, policy="final")
    differing = [(i, x) for i, x in zip(example.ids, example.labels, strict=True) if x not in (IGNORED, i)]
    assert differing == [(END, RETURN), (END, RETURN)]
    assert example.ids[-1] == example.labels[-1] == RETURN


def test_tool_calls_are_learned_and_results_are_not(encoder: Encoder) -> None:
    messages = [
        user("?"),
        call("now", {"z": 1}, thinking="look", content="wait"),
        result("12"),
        answer("Noon", "so noon"),
    ]
    (example,) = examples({"messages": messages, "tools": [NO_PARAMETERS]}, encoder=encoder, date=DATE)
    assert learned(example, encoder) == (
        "~<|channel|>analysis<|message|>look<|end|><|start|>assistant<|channel|>commentary<|message|>wait<|end|>"
        '<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{"z": 1}<|call|>~'
        "<|channel|>analysis<|message|>so noon<|end|><|start|>assistant<|channel|>final<|message|>Noon<|return|>"
    )


@pytest.mark.parametrize(
    "name", [name for name in CONVERSATIONS if any(m["role"] == "assistant" for m in CONVERSATIONS[name]["messages"])]
)
def test_every_turn_is_learned_exactly_once_after_the_prompt_that_serving_gives(name: str, encoder: Encoder) -> None:
    conversation = CONVERSATIONS[name]
    turns = [i for i, message in enumerate(conversation["messages"]) if message["role"] == "assistant"]
    seen: list[int] = []
    for example in examples(conversation, encoder=encoder, date=DATE):
        here = [example.pieces[o].message for o, x in zip(example.owners, example.labels, strict=True) if x != IGNORED]
        seen += sorted({i for i in here if i is not None})
        before = {**conversation, "messages": conversation["messages"][: seen[-1]]}
        prompt = encoder.encode(render(before, date=DATE, generate=True))
        assert example.ids[: len(prompt)] == prompt
        assert example.labels[len(prompt)] != IGNORED
    assert sorted(seen) == turns


def test_what_is_learned_parses_back_to_the_message(encoder: Encoder) -> None:
    messages = [user("?"), call("now", {"z": "é"}, thinking="look", content="wait")]
    (example,) = examples({"messages": messages}, encoder=encoder, date=DATE)
    parser = Parser(encoder)
    for label in example.labels:
        if label != IGNORED:
            parser.feed(label)
    assert parser.stopped
    assert parser.message() == {
        "content": "wait",
        "reasoning": "look",
        "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": '{"z": "é"}'}}],
        "finish_reason": "tool_calls",
    }


def test_a_long_example_loses_its_end_and_says_so(encoder: Encoder) -> None:
    (whole,) = examples({"messages": [user("x"), answer("y")]}, encoder=encoder, date=DATE)
    assert not whole.truncated
    (cut,) = examples({"messages": [user("x"), answer("y")]}, encoder=encoder, date=DATE, max_length=20)
    assert cut.truncated and cut.supervised == 0
    assert cut.ids == whole.ids[:20] and len(cut.labels) == len(cut.owners) == 20


def test_a_conversation_without_assistant_has_one_example_with_nothing_to_learn(encoder: Encoder) -> None:
    (example,) = examples({"messages": [user("x")]}, encoder=encoder, date=DATE)
    assert example.supervised == 0


def test_an_unknown_policy_names_the_known_ones(encoder: Encoder) -> None:
    with pytest.raises(HarmonyError, match=re.escape("analysis+final, final, last_turn")):
        examples({"messages": [user("x")]}, encoder=encoder, date=DATE, policy="all")  # type: ignore[arg-type]
