"""Conversations on the disk: each a tree of messages in one file, changed by merging, so that two tabs lose nothing."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from services.dashboard.errors import Refusal
from shared.schemas import Effort, Strict, now
from shared.store import NotFound, Store, write_atomic

MOST_BYTES = 16 << 20  # of one conversation, and of a request about one
MessageId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Heads = Annotated[list[MessageId | None], Field(max_length=2, description="the last message shown in each column")]
Models = Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=2, description="of each column")]
Title = Annotated[str, Field(max_length=200)]
SystemPrompt = Annotated[str, Field(max_length=200_000)]
Ids = Annotated[list[int], Field(max_length=8000)]
_turn = threading.Lock()  # the dashboard is one process, and the only writer
_summaries: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}


class Sampling(Strict):
    """What was asked for; what is absent was left to the server."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


class Usage(Strict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Message(Strict):
    """A question or an answer. An answer without `finish` and without `error` was broken off."""

    id: MessageId
    parent: MessageId | None = Field(None, description="the message that it follows; null at the start")
    role: Literal["user", "assistant"]
    content: str = ""
    thinking: str | None = None
    model: str | None = Field(None, description="what was asked: a base, adapter, export or alias")
    answered_by: str | None = Field(None, description="what that stood for when it answered")
    sha256: str | None = Field(None, description="of the weights that answered")
    effort: Effort | None = None
    sampling: Sampling | None = None
    usage: Usage | None = None
    seconds: float | None = None
    first_seconds: float | None = Field(None, description="until the first token")
    thinking_seconds: float | None = None
    tokens_per_second: float | None = None
    finish: str | None = Field(None, description="stop, length or tool_calls; stopped where a person stopped it")
    error: str | None = None
    corrected: MessageId | None = Field(None, description="the answer that a person put right in this one")
    prompt_token_ids: Ids | None = None
    token_ids: Ids | None = None
    created: str


class Changes(Strict):
    """What a chat is made of or changed by: messages are merged by id, other fields replaced, absent ones left alone."""

    title: Title | None = None
    system: SystemPrompt | None = None
    models: Models | None = None
    heads: Heads | None = None
    messages: list[Message] = Field(default_factory=list, max_length=20_000, description="each after its parent")
    removed: list[MessageId] = Field(default_factory=list, description="taken away with all that follows them")


class Chat(Strict):
    """A conversation as it is in its file."""

    id: str
    title: Title
    system: SystemPrompt = ""
    models: Models = Field(default_factory=list)
    heads: Heads = Field(default_factory=list)
    created: str
    updated: str
    messages: list[Message] = Field(max_length=20_000)

    @model_validator(mode="after")
    def _is_a_tree(self) -> "Chat":
        known: set[str] = set()
        for message in self.messages:
            if message.id in known:
                raise ValueError(f"the message {message.id} is there twice")
            if message.parent is not None and message.parent not in known:
                raise ValueError(f"the message {message.id} follows {message.parent}, which is not before it")
            known.add(message.id)
        return self


def new_id() -> str:
    """An id that sorts by time: `20261121-051359-3f2a9c`."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


def title_of(messages: Iterable[dict[str, Any]]) -> str:
    """What a chat is called until a person renames it: the first line of the first question."""
    question = next((m["content"] for m in messages if m["role"] == "user"), "").strip()
    line = question.partition("\n")[0]
    return line if len(line) <= 60 else line[:59].rstrip() + "…"


def read(store: Store, chat_id: str) -> dict[str, Any]:
    """Raises NotFound."""
    try:
        return json.loads(store.chat(chat_id).read_bytes())
    except FileNotFoundError:
        raise NotFound("There is no such conversation. It may have been deleted.") from None


def create(store: Store, changes: Changes) -> dict[str, Any]:
    """A new conversation of `changes`."""
    moment = now()
    chat = {"id": new_id(), "title": "", "system": "", "models": [], "heads": [], "created": moment, "messages": []}
    with _turn:
        return _save(store, _merged(chat, changes))


def change(store: Store, chat_id: str, changes: Changes) -> dict[str, Any]:
    """Merge `changes` into a conversation. Raises NotFound; Refusal for a message whose parent has been deleted."""
    with _turn:
        return _save(store, _merged(read(store, chat_id), changes))


def put(store: Store, chat: Chat) -> dict[str, Any]:
    """Keep an imported conversation as it is, under another id where its own is taken."""
    with _turn:
        value = chat.model_dump(exclude_none=True)
        if store.chat(chat.id).exists():
            value["id"] = new_id()
        _write(store, value)
        return value


def delete(store: Store, chat_id: str) -> None:
    """Raises NotFound."""
    with _turn:
        read(store, chat_id)
        store.chat(chat_id).unlink()
        _summaries.pop(store.chat(chat_id), None)


def page(store: Store, q: str, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """(conversations with `q` in title or text, the last changed first; how many there are in all). Only what is shown
    or searched is read."""
    with _turn:  # none is deleted between being found and being read
        found = sorted(store.chats().glob("[!.]*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        if q:
            found = [path for path in found if _matches(path, q.lower())]
        return [_summary(path) for path in found[offset : offset + limit]], len(found)


def text(chat: dict[str, Any]) -> str:
    """The file of a conversation: JSON with a line for each message, so that a person can read it."""
    rest = json.dumps({key: value for key, value in chat.items() if key != "messages"}, ensure_ascii=False, indent=1)
    lines = ",\n".join(json.dumps(message, ensure_ascii=False) for message in chat["messages"])
    return f'{rest[:-2]},\n "messages": [\n{lines}\n]}}\n'


def line(chat: dict[str, Any], head: str | None) -> list[dict[str, Any]]:
    """The messages from the start to `head`."""
    known = {message["id"]: message for message in chat["messages"]}
    found: list[dict[str, Any]] = []
    while head in known:
        found.append(known[head])
        head = known[head].get("parent")
    return found[::-1]


def _merged(chat: dict[str, Any], changes: Changes) -> dict[str, Any]:
    fields = changes.model_dump(exclude_none=True, include={"title", "system", "models", "heads"})
    messages = {message["id"]: message for message in chat["messages"]}
    for message in changes.messages:
        known = messages.get(message.id)
        if known is None and message.parent is not None and message.parent not in messages:
            raise Refusal(409, "conflict", "What this follows has been deleted in another window. Reload the page.")
        if known and (known.get("parent"), known["role"]) != (message.parent, message.role):
            raise Refusal(409, "conflict", f"The message {message.id} is there already, in another place.")
        merged = {"content": "", **(known or {}), **message.model_dump(exclude_unset=True)}
        messages[message.id] = {key: value for key, value in merged.items() if value is not None}
    gone = set(_with_all_after(messages.values(), set(changes.removed)))
    chat = {**chat, **fields, "messages": [message for id_, message in messages.items() if id_ not in gone]}
    chat["heads"] = [_left(head, messages, gone) for head in chat["heads"]]
    chat["title"] = chat["title"].strip() or title_of(chat["messages"]) or "New chat"
    return chat


def _with_all_after(messages: Iterable[dict[str, Any]], gone: set[str]) -> Iterator[str]:
    for message in messages:
        if message["id"] in gone or message.get("parent") in gone:
            gone.add(message["id"])
            yield message["id"]


def _left(head: str | None, messages: dict[str, dict[str, Any]], gone: set[str]) -> str | None:
    """The nearest message to `head` that is still there."""
    while head is not None and (head in gone or head not in messages):
        head = messages.get(head, {}).get("parent")
    return head


def _save(store: Store, chat: dict[str, Any]) -> dict[str, Any]:
    chat["updated"] = now()
    _write(store, chat)
    return chat


def _write(store: Store, chat: dict[str, Any]) -> None:
    data = text(chat).encode(errors="replace")  # half a surrogate pair, which UTF-8 cannot hold
    if len(data) > MOST_BYTES:
        raise Refusal(
            413, "too_large", f"The conversation is over {MOST_BYTES >> 20} MiB. Export it, and go on in a new one."
        )
    write_atomic(store.chat(chat["id"]), data)


def _matches(path: Path, q: str) -> bool:
    written = json.dumps(q, ensure_ascii=False)[1:-1]  # as it stands in the file
    content = path.read_text()
    if written not in content.lower():
        return False
    chat = json.loads(content)
    texts = [chat["title"], *(message.get("content", "") for message in chat["messages"])]
    return any(q in text.lower() for text in texts)


def _summary(path: Path) -> dict[str, Any]:
    stat = path.stat()
    key = (stat.st_mtime_ns, stat.st_ino)
    if path not in _summaries or _summaries[path][0] != key:
        chat = json.loads(path.read_bytes())
        shown = {name: chat[name] for name in ("id", "title", "models", "created", "updated")}
        _summaries[path] = (key, {**shown, "messages": len(chat["messages"])})
    return _summaries[path][1]
