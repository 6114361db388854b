"""Thinking ends when its tokens are spent, and what is forced then reads as the model's own words."""

import pytest

from services.inference.thinking import ThinkingBudget
from shared.harmony import Encoder, Parser
from tests.unit.test_harmony import stream

THOUGHT = "<|channel|>analysis<|message|>one two three four five"


def generated(encoder: Encoder, marked: str, budget: ThinkingBudget) -> tuple[list[int], Parser]:
    """What an engine yields up to the end of the budget, and then the ending."""
    parser, ids = Parser(encoder), []
    for token in stream(encoder, marked):
        ids.append(token)
        parser.feed(token)
        if budget.spent(token, parser):
            for forced in budget.ending:
                parser.feed(forced)
            return [*ids, *budget.ending], parser
    return ids, parser


@pytest.mark.parametrize(("tokens", "thought"), [(0, ""), (1, "one"), (3, "one two three"), (5, THOUGHT[-23:])])
def test_thinking_is_cut_after_so_many_tokens_and_the_answer_begins(tokens, thought, encoder: Encoder) -> None:
    ids, parser = generated(encoder, THOUGHT + " six", ThinkingBudget(tokens, encoder))
    opening = "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert encoder.decode(ids) == "<|channel|>analysis<|message|>" + thought + opening
    assert parser.message()["reasoning"] == thought and parser.writing == "content"


def test_thinking_that_ends_in_time_is_left_alone(encoder: Encoder) -> None:
    marked = THOUGHT + "<|end|><|start|>assistant<|channel|>final<|message|>" + "word " * 20 + "<|return|>"
    ids, parser = generated(encoder, marked, ThinkingBudget(6, encoder))
    assert ids == stream(encoder, marked) and parser.stopped


def test_several_thoughts_share_one_budget(encoder: Encoder) -> None:
    again = THOUGHT + "<|end|><|start|>assistant" + THOUGHT
    _, parser = generated(encoder, again, ThinkingBudget(7, encoder))
    assert parser.message()["reasoning"] == "one two three four five\n\none two"


def test_a_call_that_is_demanded_begins_instead_of_an_answer(encoder: Encoder) -> None:
    _, parser = generated(encoder, THOUGHT, ThinkingBudget(2, encoder, then="call"))
    for token in stream(encoder, "find <|constrain|>json<|message|>{}<|call|>"):
        parser.feed(token)
    message = parser.message()
    assert message["reasoning"] == "one two"
    assert message["tool_calls"] == [{"type": "function", "function": {"name": "find", "arguments": "{}"}}]


def test_what_is_written_is_known_at_each_token(encoder: Encoder) -> None:
    marked = (
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary<|message|>Wait"
        "<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    )
    parser, seen = Parser(encoder), []
    for token in stream(encoder, marked):
        parser.feed(token)
        if not seen or seen[-1] != parser.writing:
            seen.append(parser.writing)
    assert seen == [None, "reasoning", None, "content", None, "tool_calls", None]
