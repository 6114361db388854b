"""Token ids, of a prompt or generated, as a viewer shows them: whose each is and on which channel."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.harmony.encoder import CHANNEL, MESSAGE, START, Encoder

_WORD = re.compile(r"\s*([\w.-]+)")


@dataclass(frozen=True, slots=True)
class Label:
    """`kind` is "special" (one of harmony's tokens), "header" (role, channel, recipient) or "content"."""

    role: str
    channel: str | None
    kind: Literal["special", "header", "content"]


def labels(ids: Sequence[int], encoder: Encoder) -> list[Label]:
    """One label for each id. What comes before the first `<|start|>` is the assistant's, as a generated answer is.

    Nothing raises: a message without `<|message|>` is content from where its header ends."""
    return [label for message in _messages(ids) for label in _labelled(message, encoder)]


def _messages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    starts = [place for place, id_ in enumerate(ids) if id_ == START and place]
    yield from (ids[begin:end] for begin, end in zip([0, *starts], [*starts, len(ids)], strict=True))


def _labelled(ids: Sequence[int], encoder: Encoder) -> Iterator[Label]:
    opened = ids.index(MESSAGE) if MESSAGE in ids else len(ids)
    named = ids.index(CHANNEL) if CHANNEL in ids[:opened] else opened
    role = "assistant"
    if ids and ids[0] == START and (word := _WORD.match(encoder.decode(ids[1:named]))):
        role = word[1]
    channel = _WORD.match(encoder.decode(ids[named + 1 : opened]))
    for place, id_ in enumerate(ids):
        kind = "special" if id_ in encoder.special_ids else "header" if place < opened else "content"
        yield Label(role, channel[1] if channel else None, kind)
