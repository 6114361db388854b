"""A conversation as a file that a person takes along, and back: JSON, Markdown, or a list of OpenAI's messages.

The Markdown has the lines that are shown, each message after a comment that says what Markdown cannot. A line of the
conversation that looks like such a comment gets a backslash in front."""

import json
import re
from typing import Any

from pydantic import ValidationError

from services.dashboard import chats
from services.dashboard.chats import Chat
from services.dashboard.errors import Refusal
from shared.schemas import now

MARK = re.compile(r"^<!-- tandem: (.*) -->[ \t\r]*\n?", re.MULTILINE)
LOOKS_LIKE_ONE = re.compile(r"^(\\*<!-- tandem:)", re.MULTILINE)
ESCAPED = re.compile(r"^\\(\\*<!-- tandem:)", re.MULTILINE)
FORMS = "Import what Tandem exported (JSON or Markdown), or a JSON list of messages with 'role' and 'content'."


def markdown(chat: dict[str, Any]) -> str:
    """The shown lines of a conversation: the second column brings only what the first does not have."""
    shown = {m["id"]: m for head in chat["heads"] for m in chats.line(chat, head)}
    about = {key: chat[key] for key in ("id", "title", "models", "heads", "created", "updated")}
    parts = [_section({"chat": about}, f"# {chat['title']}", "")]
    if chat["system"]:
        parts.append(_section({"system": True}, "## System prompt", chat["system"]))
    for message in shown.values():
        facts = {key: value for key, value in message.items() if key not in ("content", "thinking", "token_ids")}
        facts.pop("prompt_token_ids", None)
        heading = "## You" if message["role"] == "user" else f"## {message.get('model', 'Assistant')}"
        if "thinking" in message:
            parts.append(_section({"message": facts}, heading, ""))
            parts.append(_section({"thinking": True}, "### Thinking", message["thinking"]))
            heading, facts = "### Answer", None
        parts.append(_section({"message": facts} if facts else {"answer": True}, heading, message["content"]))
    return "".join(parts)


def read(content: bytes) -> Chat:
    """The conversation in a file. Raises Refusal that says what is wrong with it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refusal(422, "refused", f"The file is not text in UTF-8. {FORMS}") from None
    try:
        value = _parsed(text)
        return Chat.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the conversation"
        raise Refusal(422, "refused", f"The file cannot be read at {place}: {first['msg']}. {FORMS}") from None


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return _of_markdown(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(422, "refused", f"The file begins as JSON and is not valid JSON ({error}). {FORMS}") from None
    messages = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refusal(422, "refused", f"The file has no list of messages. {FORMS}")
    return value if isinstance(value, dict) and "id" in value else _of_openai(messages)


def _section(mark: dict[str, Any], heading: str, content: str) -> str:
    """`>` stands escaped in the comment, which `-->` would end."""
    comment = json.dumps(mark, ensure_ascii=False).replace(">", "\\u003e")
    escaped = LOOKS_LIKE_ONE.sub(r"\\\1", content)
    return f"<!-- tandem: {comment} -->\n{' '.join(heading.splitlines())}\n\n{escaped}\n\n"


def _of_markdown(text: str) -> dict[str, Any]:
    """What `markdown` wrote, with the very same words."""
    marks = list(MARK.finditer(text))
    if not marks or '"chat"' not in marks[0][1]:
        raise Refusal(422, "refused", f"This is not Markdown that Tandem exported: its comments are missing. {FORMS}")
    chat: dict[str, Any] = {"messages": []}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)]
        content = ESCAPED.sub(r"\1", body.partition("\n\n")[2].removesuffix("\n").removesuffix("\n"))
        try:
            what, value = next(iter(json.loads(mark[1]).items()))
        except (ValueError, AttributeError, StopIteration):
            raise Refusal(422, "refused", f"A comment of the file is broken: {mark[0].strip()[:80]}") from None
        if what == "chat" and isinstance(value, dict):
            chat |= value
        elif what == "system":
            chat["system"] = content
        elif what == "message" and isinstance(value, dict):
            chat["messages"].append({**value, "content": content})
        elif what in ("thinking", "answer") and chat["messages"]:
            chat["messages"][-1] |= {"content": content} if what == "answer" else {"thinking": content}
    return chat


def _of_openai(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of new messages; system and developer messages at the start become the system prompt."""
    moment, system, made = now(), [], []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if role in ("system", "developer") and not made:
            system.append(str(content or ""))
            continue
        if role not in ("user", "assistant"):
            raise Refusal(422, "refused", f"Message {number + 1} has the role {role!r}; a chat has user and assistant.")
        thinking = message.get("thinking") or message.get("reasoning_content") or message.get("reasoning")
        entry = {"id": f"m{number}", "parent": made[-1]["id"] if made else None, "role": role, "created": moment}
        entry |= {"content": content or "", "finish": "stop" if role == "assistant" else None}
        made.append(entry | ({"thinking": thinking} if thinking and role == "assistant" else {}))
    chat = {"id": chats.new_id(), "title": chats.title_of(made) or "Imported chat", "system": "\n\n".join(system)}
    return chat | {"heads": [made[-1]["id"]] if made else [], "created": moment, "updated": moment, "messages": made}
