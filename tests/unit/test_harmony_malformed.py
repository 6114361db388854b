"""Whatever a model generates becomes text in some channel: nothing raises and nothing is lost."""

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.harmony import Encoder, Parser
from tests.unit.test_harmony import stream

A, C, F = (f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final"))
NEXT = "<|end|><|start|>assistant"

# name: (stream, reasoning, content, tool calls)
MALFORMED: dict[str, tuple[str, str, str, list[tuple[str, str]]]] = {
    "nothing": ("", "", "", []),
    "only a stop": ("<|return|>", "", "", []),
    "only an end": ("<|end|>", "", "", []),
    "only a start": ("<|start|>", "", "", []),
    "only a message token": ("<|message|>", "", "", []),
    "plain text": ("Hello there, you.<|return|>", "", "Hello there, you.", []),
    "plain word that begins like a header": ("to be or not to be<|return|>", "", "to be or not to be", []),
    "plain text that is a channel name": ("final<|return|>", "", "final", []),
    "plain text that begins with a channel name": ("final answer: 4<|return|>", "", "final answer: 4", []),
    "plain text that begins with the role": ("assistant professors<|return|>", "", "assistant professors", []),
    "plain text that is the role": ("assistant<|return|>", "", "assistant", []),
    "plain text cut after one letter": ("a", "", "a", []),
    "text after a missing header": ("<|message|>Hello<|return|>", "", "Hello", []),
    "analysis alone": (A + "Hm.<|return|>", "Hm.", "", []),
    "analysis cut off": (A + "Hm", "Hm", "", []),
    "analysis ended and nothing more": (A + "Hm<|end|>", "Hm", "", []),
    "text after an end": (A + "Hm<|end|>The answer is 4.<|return|>", "Hm", "The answer is 4.", []),
    "role missing after start": (A + "Hm<|end|><|start|>" + F + "4<|return|>", "Hm", "4", []),
    "start missing": (A + "Hm<|end|>assistant" + F + "4<|return|>", "Hm", "4", []),
    "start and role missing": (A + "Hm<|end|>" + F + "4<|return|>", "Hm", "4", []),
    "end missing": (A + "Hm<|start|>assistant" + F + "4<|return|>", "Hm", "4", []),
    "end, start and role missing": (A + "Hm" + F + "4<|return|>", "Hm", "4", []),
    "channel missing after start": (A + "Hm" + NEXT + "<|message|>4<|return|>", "Hm", "4", []),
    "text right after start assistant": (A + "Hm" + NEXT + " So it is 4.<|return|>", "Hm", " So it is 4.", []),
    "prompt repeated": ("<|start|>assistant" + F + "4<|return|>", "", "4", []),
    "role repeated": ("assistant" + F + "4<|return|>", "", "4", []),
    "role doubled after start": (A + "Hm" + NEXT + "assistant" + F + "4<|return|>", "Hm", "4", []),
    "channel token doubled": ("<|channel|>" + F + "4<|return|>", "", "4", []),
    "channel name doubled": ("<|channel|>finalfinal<|message|>4<|return|>", "", "4", []),
    "message token doubled": (F + "<|message|>4<|return|>", "", "4", []),
    "message token inside text": (F + "4<|message|>2<|return|>", "", "42", []),
    "end doubled": (A + "Hm<|end|>" + NEXT + F + "4<|return|>", "Hm", "4", []),
    "start doubled": (A + "Hm<|end|><|start|><|start|>assistant" + F + "4<|return|>", "Hm", "4", []),
    "whole header doubled": (F + F + "4<|return|>", "", "4", []),
    "two channels, the later wins": ("<|channel|>analysis" + F + "4<|return|>", "", "4", []),
    "channel token without name": ("<|channel|><|message|>4<|return|>", "", "4", []),
    "channel name without channel token": ("analysis<|message|>Hm" + NEXT + F + "4<|return|>", "Hm", "4", []),
    "unknown channel": ("<|channel|>reply<|message|>4<|return|>", "reply", "4", []),
    "unknown channel that is long": ("<|channel|>my own thoughts<|message|>4<|return|>", "", "my own thoughts4", []),
    "misspelt channel": ("<|channel|>Final<|message|>4<|return|>", "Final", "4", []),
    "unknown word after the channel": ("<|channel|>final yes<|message|>4<|return|>", "yes", "4", []),
    "no message token in analysis": ("<|channel|>analysisWe need 4." + NEXT + F + "4<|return|>", "We need 4.", "4", []),
    "no message token in final": ("<|channel|>final Hello there.<|return|>", "", " Hello there.", []),
    "no message token and one word": ("<|channel|>finalYes<|return|>", "", "Yes", []),
    "no message token and no name": ("<|channel|>Hello there.<|return|>", "", "Hello there.", []),
    "header cut in the name": ("<|channel|>ana", "ana", "", []),
    "header cut after the channel token": ("<|channel|>", "", "", []),
    "header cut after the name": ("<|channel|>final", "", "", []),
    "header ended": (A + "Hm" + NEXT + "<|channel|>final<|end|>", "Hm", "", []),
    "header stopped": ("<|channel|>analysis<|return|>", "", "", []),
    "channel token inside text": (F + "a <|channel|>b c<|return|>", "", "a b c", []),
    "channel token before a stop": (F + "a<|channel|><|return|>", "", "a", []),
    "header cut inside text": (F + "a<|channel|>comm", "comm", "a", []),
    "constrain inside text": (F + "a<|constrain|>b<|return|>", "", "ab", []),
    "constrain first": ("<|constrain|>json<|message|>{}<|return|>", "", "{}", []),
    "constrain doubled": ("<|channel|>final <|constrain|><|constrain|>json<|message|>{}<|return|>", "", "{}", []),
    "unknown constrain": ("<|channel|>final <|constrain|>xml<|message|><a/><|return|>", "xml", "<a/>", []),
    "constrain without message": ('<|channel|>final<|constrain|>json{"a": 1}<|return|>', "", '{"a": 1}', []),
    "reserved tokens everywhere": (
        "<|reserved_200000|><|channel|><|reserved_200014|>final<|message|>4<|reserved_200001|>2<|endofprompt|><|return|>",
        "",
        "42",
        [],
    ),
    "startoftext first": ("<|startoftext|>" + F + "4<|return|>", "", "4", []),
    "endoftext instead of return": (F + "4<|endoftext|>never read", "", "4", []),
    "text after the stop": (F + "4<|return|>never read", "", "4", []),
    "two finals": (F + "4" + NEXT + F + "5<|return|>", "", "4\n\n5", []),
    "two analyses": (A + "a" + NEXT + A + "b" + NEXT + F + "4<|return|>", "a\n\nb", "4", []),
    "analysis after final": (F + "4" + NEXT + A + "Hm<|return|>", "Hm", "4", []),
    "preamble before final": (C + "Wait." + NEXT + F + "4<|return|>", "", "Wait.\n\n4", []),
    "empty final": (A + "Hm" + NEXT + F + "<|return|>", "Hm", "", []),
    "line breaks between messages": (A + "Hm<|end|>\n<|start|>assistant" + F + "4<|return|>", "Hm", "4", []),
    "speaks for the user": (F + "4<|end|><|start|>user<|message|>Thanks!<|end|>", "Thanks!", "4", []),
    "invents a tool result": (
        F + "4<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|>12<|end|>",
        "12",
        "4",
        [],
    ),
    "call without arguments": (" to=functions.f<|channel|>commentary<|message|><|call|>", "", "", [("f", "")]),
    "call without message token": (
        ' to=functions.f<|channel|>commentary json{"a": 1}<|call|>',
        "",
        "",
        [("f", '{"a": 1}')],
    ),
    "call without channel": (' to=functions.f<|message|>{"a": 1}<|call|>', "", "", [("f", '{"a": 1}')]),
    "call without any marker": (' to=functions.f{"a": 1}<|call|>', "", "", [("f", '{"a": 1}')]),
    "call cut in the header": (" to=functions.f<|channel|>comm", "", "", [("f", "comm")]),
    "call cut in the arguments": (' to=functions.f<|channel|>commentary json<|message|>{"a', "", "", [("f", '{"a')]),
    "call that returns": ("<|channel|>commentary to=functions.f<|message|>{}<|return|>", "", "", [("f", "{}")]),
    "call on final": ("<|channel|>final to=functions.f json<|message|>{}<|call|>", "", "", [("f", "{}")]),
    "call of nobody": (C + "{}<|call|>", "", "{}", []),
    "call of the user": ("<|channel|>final to=user<|message|>4<|return|>", "", "4", []),
    "call in broken json": (" to=functions.f<|channel|>commentary json<|message|>{a:<|call|>", "", "", [("f", "{a:")]),
    "call named before and after the channel": (
        " to=functions.f<|channel|>commentary to=functions.g<|message|>{}<|call|>",
        "",
        "",
        [("g", "{}")],
    ),
    "call, its channel doubled": (
        " to=functions.f<|channel|>commentary<|channel|>commentary json<|message|>{}<|call|>",
        "",
        "",
        [("f", "{}")],
    ),
    "endless blanks in a header": ("<|channel|>final" + " \n" * 300 + "4", "", " \n" * 300 + "4", []),
    "two calls": (
        " to=functions.f<|channel|>commentary<|message|>1" + NEXT + " to=functions.g<|channel|>commentary<|message|>2",
        "",
        "",
        [("f", "1"), ("g", "2")],
    ),
}


def parsed(encoder: Encoder, ids: list[int]) -> tuple[Parser, dict[str, Any]]:
    parser = Parser(encoder)
    deltas = [delta for token in ids for delta in parser.feed(token)] + parser.finish()
    message = parser.message()
    assert "".join(d.text for d in deltas if d.channel == "analysis") == message["reasoning"]
    assert "".join(d.text for d in deltas if d.channel != "analysis") == message["content"]
    for index, call in enumerate(message["tool_calls"]):
        assert "".join(d.arguments for d in deltas if d.index == index) == call["function"]["arguments"]
    return parser, message


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_output_becomes_text(name: str, encoder: Encoder) -> None:
    marked, reasoning, content, calls = MALFORMED[name]
    _, message = parsed(encoder, stream(encoder, marked))
    assert (message["reasoning"], message["content"]) == (reasoning, content)
    assert [(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]] == calls


@pytest.mark.parametrize(
    "opening", ["", F, A, "<|channel|>", "<|channel|>final", " to=functions.f<|message|>", "<|start|>"]
)
@pytest.mark.parametrize("closing", ["", "<|return|>", "<|end|>", "<|channel|>", "<|start|>", "<|message|>"])
def test_a_cut_character_is_replaced(opening: str, closing: str, encoder: Encoder) -> None:
    character = stream(encoder, "𓂀")
    assert len(character) > 1
    _, message = parsed(encoder, stream(encoder, opening) + character[:-1] + stream(encoder, closing))
    arguments = [call["function"]["arguments"] for call in message["tool_calls"]]
    assert "".join([message["reasoning"], message["content"], *arguments]) == "\ufffd"


def test_an_endless_header_is_given_up_while_it_streams(encoder: Encoder) -> None:
    parser = Parser(encoder)
    for token in stream(encoder, "<|channel|>final" + " \n" * 300):
        parser.feed(token)
    assert parser.message()["content"].isspace()


def test_ids_without_a_text_are_ignored(encoder: Encoder) -> None:
    ids = [201087, *stream(encoder, F), 200019, 999_999_999, *stream(encoder, "4"), 201088]
    assert parsed(encoder, ids)[1]["content"] == "4"


_HEADER = re.compile(
    r"assistant|analysis|commentary|final|user|system|developer|tool|json|code|text|python"
    r"|to=[\w.:/-]+|functions\.[\w.:/-]*",
    re.ASCII,
)
_FLUSHING = {199999, 200002, 200005, 200006, 200007, 200008, 200012}
_STOPS = {199999, 200002, 200012}
_FRAGMENTS = (
    "assistant", "analysis", "commentary", "final", "user", " to=functions.f", " to=", "functions.f", " json", "Hello",
    " there", '{"a": 1}', "\n", " ", "é", "日本", "assist", "ana", "!",
)  # fmt: skip
_MARKERS = [
    199998,
    199999,
    200002,
    200003,
    200005,
    200005,
    200006,
    200006,
    200007,
    200007,
    200008,
    200008,
    200012,
    200014,
]
_TOKENS = st.one_of(
    st.integers(0, 201_100).map(lambda i: [i]),
    st.sampled_from(_MARKERS).map(lambda i: [i]),
    st.sampled_from(_FRAGMENTS),
    st.sampled_from(_FRAGMENTS),
)


def runs(encoder: Encoder, ids: list[int]) -> list[str]:
    """The ordinary texts between the special tokens that structure a stream, up to its stop."""
    found = [b""]
    for token in ids:
        if token in _STOPS:
            break
        if token in _FLUSHING:
            found.append(b"")
        elif token not in encoder.special_ids:
            found[-1] += encoder.token_bytes(token)
    return [run.decode("utf-8", "replace") for run in found]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(_TOKENS, max_size=30))
def test_random_ids_never_raise_and_no_text_is_lost(parts: list[Any], encoder: Encoder) -> None:
    ids = [token for part in parts for token in (part if isinstance(part, list) else stream(encoder, part))]
    parser, message = parsed(encoder, ids)
    assert parser.stopped == any(token in _STOPS for token in ids)
    arguments = [call["function"]["arguments"] for call in message["tool_calls"]]
    shown = re.sub(r"\s+", "", "\n".join([message["reasoning"], message["content"], *arguments]))
    for run in runs(encoder, ids):
        for word in _HEADER.sub(" ", run).split():
            assert word in shown


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 199_997), max_size=40))
def test_ordinary_tokens_in_a_channel_are_text_to_the_last_byte(ids: list[int], encoder: Encoder) -> None:
    for opening, place in ((A, "reasoning"), (F, "content"), (C, "content"), ("<|message|>", "content")):
        _, message = parsed(encoder, stream(encoder, opening) + ids)
        assert message[place] == encoder.decode(ids)
