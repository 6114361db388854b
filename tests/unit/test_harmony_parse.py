"""Well-formed output parses as openai-harmony parses it, and streams in pieces that add up."""

import base64
from typing import Any

import pytest

from shared.harmony import (
    GENERATION_STOPS,
    Encoder,
    Parser,
)
from tests.harmony_streams import cases
from tests.unit.test_harmony import stream


@pytest.fixture(scope="session")
def openai_harmony(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """openai-harmony's encoding, from the ranks of our tokenizer instead of a download."""
    folder = tmp_path_factory.mktemp("tiktoken")
    lines = (base64.b64encode(encoder.token_bytes(i)) + b" %d\n" % i for i in range(199998))
    (folder / "o200k_base.tiktoken").write_bytes(b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_ENCODINGS_BASE", str(folder))
        from openai_harmony import HarmonyEncodingName, load_harmony_encoding

        yield load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


WELL_FORMED = {name: case.stream for name, case in cases("well_formed").items()}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_well_formed_output_parses_as_in_openai_harmony(name: str, encoder: Encoder, openai_harmony: Any) -> None:
    from openai_harmony import Role

    ids = stream(encoder, WELL_FORMED[name])
    theirs = openai_harmony.parse_messages_from_completion_tokens(ids, role=Role.ASSISTANT)
    texts: dict[str, str] = {"analysis": "", "content": ""}
    calls = []
    for message in theirs:
        body = "".join(part.text for part in message.content)
        if message.recipient:
            calls.append((message.channel, message.recipient.removeprefix("functions."), body))
        else:
            place = "analysis" if message.channel == "analysis" else "content"
            texts[place] += ("\n\n" if texts[place] else "") + body

    parser = Parser(encoder)
    deltas = [delta for token in ids for delta in parser.feed(token)]
    ours = parser.message()

    assert (ours["reasoning"], ours["content"]) == (texts["analysis"], texts["content"])
    named = [(d.channel, d.recipient) for d in deltas if d.recipient and not d.arguments]
    arguments = [c["function"]["arguments"] for c in ours["tool_calls"]]
    assert [(c, n, a) for (c, n), a in zip(named, arguments, strict=True)] == calls
    assert parser.stopped and ours["finish_reason"] == ("tool_calls" if calls else "stop")


def test_deltas_arrive_with_their_tokens_and_add_up(encoder: Encoder) -> None:
    ids = stream(encoder, WELL_FORMED["thinking and answer"].replace("4<", "one 🙂 two<"))
    parser = Parser(encoder)
    deltas = []
    for token in ids:
        assert not parser.stopped
        deltas += parser.feed(token)
    assert parser.finish() == [] and parser.feed(ids[0]) == []
    assert "".join(d.text for d in deltas if d.channel == "final") == "one 🙂 two" == parser.message()["content"]
    assert not any("\ufffd" in d.text for d in deltas)
    assert len(deltas) >= 4


def test_arguments_stream_after_the_call_is_announced(encoder: Encoder) -> None:
    parser = Parser(encoder)
    ids = stream(encoder, WELL_FORMED["call as the template has it"])
    deltas = [delta for token in ids for delta in parser.feed(token)]
    assert (deltas[0].recipient, deltas[0].arguments, deltas[0].index) == ("f", "", 0)
    assert "".join(d.arguments for d in deltas) == '{"a": "é"}'
    assert not any(d.text for d in deltas)


def test_stops(encoder: Encoder) -> None:
    assert encoder.decode(GENERATION_STOPS) == "<|return|><|call|>"
    for token, stops in (("<|return|>", True), ("<|call|>", True), ("<|endoftext|>", True), ("<|end|>", False)):
        parser = Parser(encoder)
        for i in stream(encoder, "<|channel|>final<|message|>x" + token):
            parser.feed(i)
        assert parser.stopped is stops
        assert parser.message()["finish_reason"] == ("stop" if stops else "length")
