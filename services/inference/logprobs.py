"""Log-probabilities in OpenAI's shapes: one for chat, an older one for completions."""

import codecs
from collections.abc import Sequence
from typing import Any

from shared.harmony import Encoder

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")  # of the older shape, side by side
LEAST = -9999.0  # as OpenAI says it of what is all but impossible: JSON has no minus infinity


def chat(encoder: Encoder, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """One entry of a choice's `logprobs.content`. `top` are the likeliest ids with theirs, natural logarithms.

    OpenAI lists the tokens of the content: those after which `Parser.writing` is "content"."""
    likeliest = [_named(encoder, other, its) for other, its in top]
    return {**_named(encoder, token, logprob), "top_logprobs": likeliest}


class Completion:
    """The `logprobs` of `/v1/completions`, chunk by chunk: lists side by side, with each token's place in the text."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self._length = encoder, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def chunk(self, tokens: Sequence[tuple[int, float, Sequence[tuple[int, float]]]]) -> dict[str, Any]:
        """For tokens given as id, log-probability and the likeliest ids with theirs."""
        told: dict[str, Any] = {name: [] for name in LISTS}
        for token, logprob, top in tokens:
            told["tokens"].append(_text(self.encoder.token_bytes(token)))
            told["token_logprobs"].append(max(logprob, LEAST))
            told["top_logprobs"].append({_text(self.encoder.token_bytes(i)): max(its, LEAST) for i, its in top})
            told["text_offset"].append(self._length)
            self._length += len(self._decoder.decode(self.encoder.token_bytes(token)))
        return told


def _named(encoder: Encoder, token: int, logprob: float) -> dict[str, Any]:
    data = encoder.token_bytes(token)
    return {"token": _text(data), "logprob": max(logprob, LEAST), "bytes": list(data)}


def _text(data: bytes) -> str:
    """A token's text; of one that is a part of a character, its bytes spelled out."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in data)
