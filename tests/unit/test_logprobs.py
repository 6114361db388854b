"""Log-probabilities stand in OpenAI's shapes, and their bytes add up to the text."""

import json
import math

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.completion_choice import Logprobs

from services.inference import logprobs
from shared.harmony import Encoder
from tests.unit.test_harmony import stream


def test_an_entry_of_chat_is_openais_and_its_bytes_are_the_text(encoder: Encoder) -> None:
    ids = stream(encoder, "Köln 𓂀!")
    entries = [logprobs.chat(encoder, token, -0.5, [(token, -0.5), (ids[0], -1.5)]) for token in ids]
    parsed = [ChatCompletionTokenLogprob.model_validate(entry, strict=True) for entry in entries]
    assert bytes(byte for entry in parsed for byte in entry.bytes).decode() == "Köln 𓂀!"
    likeliest, next_one = parsed[-1].top_logprobs
    assert (likeliest.token, likeliest.logprob, next_one.logprob) == ("!", -0.5, -1.5)


def test_a_part_of_a_character_is_told_by_its_bytes(encoder: Encoder) -> None:
    first = stream(encoder, "𓂀")[0]
    assert logprobs.chat(encoder, first, -1.0, [])["token"].startswith("\\xf0")


def test_what_is_impossible_is_still_json(encoder: Encoder) -> None:
    entry = logprobs.chat(encoder, 1, -math.inf, [(2, -math.inf)])
    assert json.loads(json.dumps(entry, allow_nan=False))["logprob"] == -9999.0


def test_completions_have_lists_side_by_side_that_go_on_from_chunk_to_chunk(encoder: Encoder) -> None:
    ids = stream(encoder, "One 日本 two")
    made = logprobs.Completion(encoder)
    chunks = [Logprobs.model_validate(made.chunk([(token, -0.1, [(token, -0.1)])]), strict=True) for token in ids]
    offsets = [offset for chunk in chunks for offset in chunk.text_offset]
    text = "".join(token for chunk in chunks for token in chunk.tokens)
    assert text == "One 日本 two" and offsets[0] == 0 and offsets == sorted(offsets)
    assert text[offsets[-1] :] == chunks[-1].tokens[0] == next(iter(chunks[-1].top_logprobs[0]))
