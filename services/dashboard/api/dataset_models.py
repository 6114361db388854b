"""The shapes of what the API says of data sets: their cards, uploads and rows, and the tokens that a conversation becomes."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.dashboard.api.models import Page
from shared.datasets import Card
from shared.schemas import Policy


class DatasetCard(Card):
    reference: str


class DatasetPage(Page):
    items: list[DatasetCard]


class Upload(BaseModel):
    phase: Literal["receiving", "reading", "done", "failed"]
    read: int = Field(0, description="bytes of the file whose rows have been read")
    total: int = Field(0, description="bytes of the file")
    accepted: int = Field(0, description="rows")
    rejected: int = Field(0, description="rows")
    message: str | None = Field(None, description="why it failed")
    reference: str | None = Field(None, description="what came of it")


class Row(BaseModel):
    """A conversation has messages, a preference chosen and rejected as well, a text its text alone."""

    index: int
    messages: list[dict[str, Any]] | None = None
    chosen: dict[str, Any] | None = None
    rejected: dict[str, Any] | None = None
    text: str | None = None
    continues: bool | None = Field(None, description="the text's document goes on in the next row")
    tools: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None


class RowPage(Page):
    items: list[Row]


class Rejected(BaseModel):
    line: int
    reason: str
    text: str


class RejectedPage(Page):
    items: list[Rejected]
    kinds: dict[str, int] = Field(description="rejected rows by the kind of their reason, the most frequent first")


class PlainToken(BaseModel):
    id: int
    text: str
    channel: str | None
    role: str
    kind: str


class TokenList(BaseModel):
    tokens: list[PlainToken]


class Token(PlainToken):
    supervised: bool


class TokenExample(BaseModel):
    tokens: list[Token]
    supervised: int
    total: int
    truncated: bool


class TokenView(BaseModel):
    row: int
    policy: Policy
    examples: list[TokenExample]
