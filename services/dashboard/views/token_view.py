"""A row as the trainer sees it, cut into what a page can draw: messages of pieces of tokens, with what is learned marked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from markupsafe import Markup, escape

from shared.harmony import IGNORED, Encoder, Example, row_examples
from shared.schemas import Policy

SHOWN = 3000  # tokens drawn on one page: a browser takes many more, a reader does not
UNSEEN = Markup("<i>U+{:04X}</i>")
WORDS = {"\n": Markup("<i>↵</i>\n"), "\r": Markup("<i>␍</i>"), "\t": Markup("<i>⇥</i>\t")}


@dataclass
class Token:
    """One token; `learned_as` is the text of the token that is learned in its place, where that is another one."""

    place: int
    id: int
    text: str
    learned_as: str | None = None

    @property
    def blank(self) -> int:
        """How many spaces it begins with."""
        return len(self.text) - len(self.text.lstrip(" "))


@dataclass
class Piece:
    """Tokens in a row that have the same meaning and are all learned, or all not."""

    kind: str
    learned: bool
    tokens: list[Token] = field(default_factory=list)


@dataclass
class Said:
    """One harmony message: from `<|start|>` to its end."""

    role: str
    channel: str | None
    pieces: list[Piece] = field(default_factory=list)


@dataclass
class View:
    """An example as far as it is drawn: `said` holds tokens `first` to `last` of `total`. `lost` are cut by max_length."""

    number: int
    said: list[Said]
    first: int
    last: int
    total: int
    supervised: int
    lost: int
    lost_supervised: int


def views(
    row: dict[str, Any],
    encoder: Encoder,
    policy: Policy,
    *,
    effort: str | None = None,
    max_length: int | None = None,
    room: int = SHOWN,
    only: int | None = None,
    part: int = 1,
) -> list[View]:
    """The examples that a row becomes; `room` tokens are drawn in all, from the first example on, or part `part` of
    example `only` alone. Raises HarmonyError when the row has no rendering."""
    made = row_examples(
        row,
        encoder=encoder,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        policy=policy,
        effort=effort,
        max_length=max_length
        if "text" in row
        else None,  # a text is parted; of anything else what is cut is counted here
    )
    found = []
    for number, example in enumerate(made, 1):
        if only not in (None, number):
            continue
        total = min(len(example.ids), max_length or len(example.ids))
        first = min(part - 1, max(total - 1, 0) // SHOWN) * SHOWN if only else 0
        last = min(total, first + (SHOWN if only else room))
        room -= last - first
        supervised = sum(label != IGNORED for label in example.labels[:total])
        found.append(
            View(
                number, list(_said(example, encoder, first, last)), first, last, total, supervised,
                len(example.ids) - total, example.supervised - supervised,
            )
        )  # fmt: skip
    return found


def visible(text: str) -> Markup:
    """A token's text as HTML in which line breaks, tabs and characters without a shape can be seen."""
    if not text:
        return Markup("<i>▯</i>")  # a part of a character; its last token shows it
    if text.isprintable():
        return escape(text)
    return Markup("").join(escape(c) if c.isprintable() else WORDS.get(c) or UNSEEN.format(ord(c)) for c in text)


def _said(example: Example, encoder: Encoder, first: int, last: int) -> Iterator[Said]:
    """The messages of tokens `first` to `last`; a message that began before goes on without its head."""
    said, piece, before = None, None, None
    texts = encoder.tokens(example.ids)
    for place, text in enumerate(islice(texts, first, last), first):
        owner, label, id_ = example.owners[place], example.labels[place], example.ids[place]
        of = example.pieces[owner]
        if said is None or (of.text == "<|start|>" and of.kind == "special"):
            if said:
                yield said
            said, before = Said(of.role, of.channel), None
        learned = label != IGNORED
        if piece is None or before != (owner, learned):
            piece = Piece(of.kind, learned)
            said.pieces.append(piece)
        before = (owner, learned)
        other = encoder.tokens([label])[0] if learned and label != id_ else None
        piece.tokens.append(Token(place, id_, text, other))
    if said:
        yield said
