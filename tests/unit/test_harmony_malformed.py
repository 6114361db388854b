"""Whatever a model generates becomes text in some channel: nothing raises and nothing is lost."""

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.harmony import Encoder, Parser
from tests.harmony_streams import cases
from tests.unit.test_harmony import stream

A, C, F = (f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final"))

CASES = cases()


def parsed(encoder: Encoder, ids: list[int]) -> tuple[Parser, dict[str, Any]]:
    parser = Parser(encoder)
    deltas = [delta for token in ids for delta in parser.feed(token)] + parser.finish()
    message = parser.message()
    assert "".join(d.text for d in deltas if d.channel == "analysis") == message["reasoning"]
    assert "".join(d.text for d in deltas if d.channel != "analysis") == message["content"]
    for index, call in enumerate(message["tool_calls"]):
        assert "".join(d.arguments for d in deltas if d.index == index) == call["function"]["arguments"]
    return parser, message


@pytest.mark.parametrize("name", CASES)
def test_each_stream_becomes_its_message(name: str, encoder: Encoder) -> None:
    case = CASES[name]
    _, message = parsed(encoder, stream(encoder, case.stream))
    assert (message["reasoning"], message["content"]) == (case.reasoning, case.content)
    assert [[c["function"]["name"], c["function"]["arguments"]] for c in message["tool_calls"]] == case.calls


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
    parser.finish()
    assert parser.message()["content"] == " \n" * 300


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
