"""A conversation becomes the text of harmony, cut into pieces that say what they are."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shared.harmony.typescript import namespace

Channel = Literal["analysis", "commentary", "final"]
CHANNELS: tuple[Channel, ...] = ("analysis", "commentary", "final")
EFFORTS = ("low", "medium", "high")
IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
Message = Mapping[str, Any]


class HarmonyError(ValueError):
    """The conversation or tokenizer cannot be used; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of rendered text with one meaning.

    `kind` is "special" (exactly one special token), "header" (role, channel, recipient) or "content". `channel` is that
    of the harmony message the piece belongs to. `message` indexes `conversation["messages"]`; it is None for what
    comes from none of them (the system message, tools alone, the generation prompt).
    """

    text: str
    role: str
    channel: Channel | None
    kind: Literal["special", "header", "content"]
    message: int | None


def render(
    conversation: Mapping[str, Any],
    *,
    date: str,
    effort: str | None = None,
    generate: bool = False,
    identity: str = IDENTITY,
) -> list[Piece]:
    """Render a conversation; the joined texts are what the chat template of openai/gpt-oss-20b gives.

    Args:
        conversation: `{"messages": [...], "tools"?: [...], "reasoning_effort"?: ..., "response_format"?: {"name": ...,
            "description"?: ..., "schema": ...}}`.
        date: the current date, `YYYY-MM-DD`.
        effort: "low", "medium" or "high"; wins over the conversation's own, which wins over "medium".
        generate: end with `<|start|>assistant`, for the model to go on; else the last final closes with `<|return|>`.
        identity: first line of the system message.

    Where the template fails or loses text, this goes on: later system and developer messages become developer messages;
    all tool calls of a message are rendered, their results matched by `tool_call_id`, `name`, or order; arguments given
    as a string stand as they are; content beside thinking in a tool-call message is a preamble on the commentary
    channel; content made of text parts is joined.

    Raises:
        HarmonyError: no sensible rendering exists.
    """
    messages = checked(conversation)
    keep = kept_thinking(messages, generate=generate)
    return assemble(conversation, date=date, effort=effort, generate=generate, identity=identity, keep=keep)


def assemble(
    conversation: Mapping[str, Any],
    *,
    date: str,
    effort: str | None,
    generate: bool,
    identity: str = IDENTITY,
    keep: Collection[int],
) -> list[Piece]:
    """Render with the thinking of exactly the messages in `keep` (indices). See `render` for the rest."""
    messages, tools = checked(conversation), conversation.get("tools") or []
    pieces = _system(conversation, tools, date, effort, identity)
    instructed = messages[0]["role"] in ("system", "developer")
    first = _text(messages, 0) if instructed else ""
    sections = [f"# Instructions\n\n{first}\n\n"] if first else []
    sections += ["# Tools\n\n" + namespace(tools)] if tools else []
    if wanted := conversation.get("response_format"):
        sections += [("\n\n" if tools else "") + _response_format(wanted)]
    if sections:
        pieces += _message("developer", "".join(sections), index=0 if instructed else None)
    calls: list[Mapping[str, Any]] = []
    for index in range(int(instructed), len(messages)):
        message, role = messages[index], messages[index]["role"]
        if role == "assistant":
            calls = list(tool_calls(message))
            ends = index == len(messages) - 1 and not generate
            pieces += _assistant(messages, index, think=index in keep, ends=ends)
        elif role == "tool":
            author = f"functions.{_caller(message, calls, index)} to=assistant"
            body = _json(_joined_parts(message.get("content")))
            pieces += _message("tool", body, author=author, channel="commentary", index=index)
        elif role == "user":
            pieces += _message("user", _text(messages, index), index=index)
        else:
            pieces += _message("developer", f"# Instructions\n\n{_text(messages, index)}\n\n", index=index)
    if generate:
        pieces += [_special("<|start|>", "assistant"), Piece("assistant", "assistant", None, "header", None)]
    return pieces


def checked(conversation: Mapping[str, Any]) -> Sequence[Message]:
    """The messages of a conversation.

    Raises:
        HarmonyError: there are none, or one has an unknown role.
    """
    messages: Sequence[Message] | None = conversation.get("messages")
    if not messages:
        raise HarmonyError("The conversation has no messages: give at least one under 'messages'.")
    for index, message in enumerate(messages):
        if message.get("role") not in ("system", "developer", "user", "assistant", "tool"):
            raise HarmonyError(
                f"Message {index} has the role {message.get('role')!r}: use system, developer, user, assistant or tool."
            )
    return messages


def tool_calls(message: Message) -> Iterator[Mapping[str, Any]]:
    """The function calls of a message, each with `name`, `arguments`, and `id` where it has one."""
    for call in message.get("tool_calls") or []:
        yield {"id": call.get("id"), **(call.get("function") or call)}


def thinking(message: Message) -> str | None:
    """What a message puts on the analysis channel.

    As in the template, the content of a tool-call message counts as thinking if it has no other; and an empty string
    is an (empty) analysis message in an answer but nothing in a tool call.
    """
    if message.get("tool_calls"):
        return message.get("thinking") or _joined_parts(message.get("content")) or None
    return message.get("thinking")


def kept_thinking(messages: Sequence[Message], *, generate: bool) -> set[int]:
    """Indices of the assistant messages whose thinking is rendered.

    These are the last message, when it is an answer and nothing is to be generated, and tool calls that no answer
    follows. Source: the chat template; harmony drops older thinking from the history.
    """
    kept: set[int] = set()
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] != "assistant":
            continue
        if not messages[index].get("tool_calls"):
            return kept | {index} if index == len(messages) - 1 and not generate else kept
        kept.add(index)
    return kept


def _system(
    conversation: Mapping[str, Any], tools: Sequence[Any], date: str, effort: str | None, identity: str
) -> list[Piece]:
    effort = effort or conversation.get("reasoning_effort") or "medium"
    if effort not in EFFORTS:
        raise HarmonyError(f"The reasoning effort is {effort!r}: use low, medium or high.")
    body = (
        f"{identity}\nKnowledge cutoff: 2024-06\nCurrent date: {date}\n\nReasoning: {effort}\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message."
    )
    if tools:
        body += "\nCalls to these tools must go to the commentary channel: 'functions'."
    return _message("system", body)


def _response_format(wanted: Mapping[str, Any]) -> str:
    """Source: https://cookbook.openai.com/articles/openai-harmony, structured output. The chat template has none of it."""
    described = f"// {wanted['description']}\n" if wanted.get("description") else ""
    return f"# Response Formats\n\n## {wanted['name']}\n\n{described}{_json(wanted['schema'])}"


def _assistant(messages: Sequence[Message], index: int, *, think: bool, ends: bool) -> list[Piece]:
    message = messages[index]
    for field in ("content", "thinking"):
        value = message.get(field)
        if isinstance(value, str) and any(f"<|channel|>{c}<|message|>" in value for c in ("analysis", "final")):
            raise HarmonyError(
                f"Message {index} has channel tags in {field!r}: put the analysis into 'thinking' and the answer into"
                " 'content', both without tags."
            )
    pieces: list[Piece] = []
    thought = thinking(message)
    if think and thought is not None:
        pieces += _message("assistant", thought, channel="analysis", index=index)
    if not message.get("tool_calls"):
        end = "<|return|>" if ends else "<|end|>"
        return pieces + _message("assistant", _text(messages, index), channel="final", end=end, index=index)
    content = _joined_parts(message.get("content"))
    if content and message.get("thinking"):
        pieces += _message("assistant", content, channel="commentary", index=index)
    for call in tool_calls(message):
        pieces += _call(call, index)
    return pieces


def _call(call: Mapping[str, Any], index: int) -> list[Piece]:
    if not call.get("name"):
        raise HarmonyError(f"A tool call of message {index} has no function name: give it as function.name.")
    arguments = call.get("arguments")
    body = arguments if isinstance(arguments, str) else _json({} if arguments is None else arguments)
    return _message(
        "assistant",
        body,
        to=f" to=functions.{call['name']}",
        channel="commentary",
        content_type=f" {call.get('content_type', 'json')}",
        end="<|call|>",
        index=index,
    )


def _caller(message: Message, calls: list[Mapping[str, Any]], index: int) -> str:
    """Name of the function a tool message answers; takes its call out of `calls` while others wait."""
    identity, name = message.get("tool_call_id"), message.get("name")
    for field, wanted in (("id", identity), ("name", name)):
        match = next((call for call in calls if wanted and call.get(field) == wanted), None)
        if match:
            break
    else:
        match = calls[0] if calls else None
    if match is None and not name:
        raise HarmonyError(
            f"Message {index} is a tool result without a call before it: add the assistant message with 'tool_calls',"
            " or give the function in 'name'."
        )
    if match is None:
        return str(name)
    if len(calls) > 1:
        calls.remove(match)
    return str(match["name"])


def _message(
    role: str,
    body: str,
    *,
    author: str | None = None,
    to: str = "",
    channel: Channel | None = None,
    content_type: str = "",
    end: str = "<|end|>",
    index: int | None = None,
) -> list[Piece]:
    def piece(text: str, kind: Literal["header", "content"]) -> Piece:
        return Piece(text, role, channel, kind, index)

    pieces = [_special("<|start|>", role, channel, index), piece(author or role, "header")]
    if to:
        pieces.append(piece(to, "header"))
    if channel:
        pieces += [_special("<|channel|>", role, channel, index), piece(channel + content_type, "header")]
    pieces.append(_special("<|message|>", role, channel, index))
    if body:
        pieces.append(piece(body, "content"))
    return [*pieces, _special(end, role, channel, index)]


def _special(text: str, role: str, channel: Channel | None = None, index: int | None = None) -> Piece:
    return Piece(text, role, channel, "special", index)


def _text(messages: Sequence[Message], index: int) -> str:
    content = _joined_parts(messages[index].get("content"))
    if not isinstance(content, str):
        raise HarmonyError(f"Message {index} ({messages[index]['role']}) has no text: give 'content' as a string.")
    return content


def _joined_parts(content: Any) -> Any:
    """OpenAI's list of text parts as one string; anything else unchanged."""
    if isinstance(content, list) and content and all(isinstance(p, Mapping) and "text" in p for p in content):
        return "".join(part["text"] for part in content)
    return content


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
