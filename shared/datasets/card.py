"""The card of a dataset: what is in it and where it comes from, as `card.json` beside the rows."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel

from shared.schemas import DataKind

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "preference", "text"]


class Histogram(BaseModel):
    """`counts[i]` values lie in `[edges[i], edges[i + 1])`; the last bin is open above."""

    edges: list[int]
    counts: list[int]


class Rows(BaseModel):
    """Rows by what became of them: read = accepted + rejected. Blank lines are no rows; duplicates are kept."""

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    blank: int = 0
    duplicate: int = 0


class Turns(BaseModel):
    """Turns of a conversation: its user messages, each with what follows it. A text has none."""

    min: int
    mean: float
    max: int
    histogram: Histogram


class Tokens(BaseModel):
    """Tokens of a row as it is rendered for training; of a preference, with the longer of its answers."""

    total: int
    mean: float
    max: int
    histogram: Histogram


class Reasoning(BaseModel):
    """Rows in which an assistant message has thinking, and rows that state an effort, by effort."""

    rows: int
    share: float
    by_effort: dict[str, int]
    languages: dict[str, float]


class Splits(BaseModel):
    """How many rows `is_validation` puts on each side at this share."""

    share: float
    train: int
    validation: int


class Card(BaseModel):
    """A dataset. `bytes` is the size of data.jsonl, `sha256` its hash and `version` the first 12 digits of that.

    All rows are of one `kind`; a card from before there were kinds is of conversations."""

    name: str
    version: str
    sha256: str
    kind: DataKind = "conversations"
    format: Format
    file_format: str
    rows: Rows
    turns: Turns
    tokens: Tokens | None
    languages: dict[str, float]
    reasoning: Reasoning
    tools: int
    splits: Splits
    columns: list[str]
    warnings: dict[str, int]
    created: str
    bytes: int
    source: str
    parents: list[str] = []
    licence: str = ""
    notes: str = ""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The card in a dataset's directory."""
        return cls.model_validate_json((directory / "card.json").read_bytes())

    def save(self, directory: Path) -> None:
        """Write `card.json` into a dataset's directory."""
        (directory / "card.json").write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
