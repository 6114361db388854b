"""One row in the form that Tandem trains on, and the rules that a conversation must keep to have it.

A canonical row is, with its keys in this order, one of three kinds:

- a conversation: `{"messages": [{"role", "content", "thinking"?, "tool_calls"?, "name"?, "tool_call_id"?}], "tools"?,
  "reasoning_effort"?}`. `content` is always a string; `arguments` of a tool call always an object; a tool is always
  `{"type": "function", "function": {"name", ...}}`, as in OpenAI's chat format.
- a preference: a conversation's prompt and two answers to it, `{"messages": [...], "chosen": {...}, "rejected": {...},
  "tools"?, "reasoning_effort"?}`; each answer is an assistant message.
- a text: `{"text": "...", "continues"?: true}`, where `continues` says that its document goes on in the next row.
"""

import hashlib
import json
from collections.abc import Iterable

from shared.datasets.errors import RowError

ROLES = ("system", "developer", "user", "assistant", "tool")
EFFORTS = ("low", "medium", "high")
SIDES = ("chosen", "rejected")
ROW_KEYS = ("messages", *SIDES, "text", "continues", "tools", "reasoning_effort")
MESSAGE_KEYS = ("role", "content", "thinking", "tool_calls", "name", "tool_call_id")
THINKING_KEYS = ("thinking", "reasoning", "reasoning_content")
KNOWN_KEYS = {*MESSAGE_KEYS, *THINKING_KEYS, "function_call"}
MAX_DEPTH = 64


def encode(row: dict) -> bytes:
    """The canonical line of a row: compact UTF-8 JSON, keys in the documented order, no newline.

    Keys outside the canonical ones are left out, so a row that carries a page index encodes as the row alone.
    Raises RowError for text that UTF-8 cannot hold and for numbers that JSON cannot.
    """
    ordered = {key: row[key] for key in ROW_KEYS if key in row}
    ordered |= {"messages": [_ordered(m) for m in row["messages"]]} if "messages" in row else {}
    ordered |= {side: _ordered(row[side]) for side in SIDES if side in row}
    try:
        return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        raise RowError(
            "its text holds half of a surrogate pair (such as \\ud83d alone), which UTF-8 cannot hold"
        ) from None
    except ValueError as error:
        raise RowError(f"it holds a value that JSON cannot: {error}") from None


def messages_of(row: dict) -> list[dict]:
    """Every message of a canonical row: of a preference both answers as well, of a text none."""
    return [*row.get("messages", ()), *(row[side] for side in SIDES if side in row)]


def is_validation(row: dict, share: float) -> bool:
    """Whether a canonical row belongs to the validation side when that side is to have `share` (0 to 1) of the rows.

    The side follows from the SHA-256 of the row's canonical line alone: the same row falls on the same side in every
    file and order, so a duplicate never leaks across, and a row in validation at one share is there at any larger one.
    The share is met on average; a dataset of a few rows may have no validation row at all.
    """
    return in_share(hashlib.sha256(encode(row)).digest(), share)


def in_share(digest: bytes, share: float) -> bool:
    """`is_validation` for a row whose SHA-256 digest is known."""
    if not 0 <= share <= 1:
        raise ValueError(f"The validation share is {share}; give a number from 0 to 1.")
    return int.from_bytes(digest[:8]) < share * 2**64


def check_depth(value: object) -> None:
    """Raise RowError when `value` is nested more than 64 levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return
    raise RowError(f"it is nested deeper than {MAX_DEPTH} levels")


def conversation(
    messages: object, *, tools: object = None, effort: object = None, notes: set[str], field: str = "messages"
) -> dict:
    """A canonical row from messages in OpenAI's format; `field` names their column in reasons.

    Adds to `notes` what was left out on the way, for the card's warnings. Raises RowError with the reason.
    """
    if not isinstance(messages, list):
        raise RowError(f"'{field}' is {kind(messages)}; it must be a list of messages")
    if not messages:
        raise RowError(f"'{field}' is an empty list; there is nothing to learn from it")
    kept = [m for n, raw in enumerate(messages, 1) if (m := _message(raw, f"message {n}", notes))]
    _check_order(kept, field)
    row = {"messages": kept}
    if tool_list := _tools(tools):
        row["tools"] = tool_list
    if effort not in (None, ""):
        row["reasoning_effort"] = _effort(effort)
    return row


def kind(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a value of type {type(value).__name__}")


def shown(value: object) -> str:
    """The beginning of something from a file, safe to put into a sentence and to write as UTF-8."""
    return str(value)[:60].encode(errors="replace").decode()


def _ordered(message: dict) -> dict:
    return {key: message[key] for key in MESSAGE_KEYS if key in message}


def _members(value: object) -> Iterable:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _message(raw: object, where: str, notes: set[str]) -> dict | None:
    """One canonical message; None for an empty system or developer message, which says nothing."""
    if not isinstance(raw, dict):
        raise RowError(f"{where} is {kind(raw)}; it must be an object with 'role' and 'content'")
    role = _role(raw, where)
    content, thinking = _spoken(raw, role, where)
    calls = _calls(raw, role, where)
    if not content.strip() and role in ("system", "developer"):
        notes.add(f"rows with an empty {role} message, which was left out")
        return None
    if not content.strip() and not calls and role != "tool":  # a tool may well return nothing
        raise RowError(f"{where} ({role}) has empty content" + (", only thinking" if thinking else ""))
    message = {"role": role, "content": content}
    message |= {"thinking": thinking} if thinking else {}
    message |= {"tool_calls": calls} if calls else {}
    message |= {key: str(raw[key]) for key in ("name", "tool_call_id") if raw.get(key)}
    notes.update(
        f"rows with the message field '{shown(key)}', which is not used"
        for key in raw.keys() - KNOWN_KEYS
        if raw[key] is not None
    )
    return message


def _role(raw: dict, where: str) -> str:
    role = raw.get("role")
    if not isinstance(role, str):
        raise RowError(f"{where} has no 'role'" if role is None else f"{where} has {kind(role)} as its role")
    known = "tool" if role.lower() == "function" else role.lower()
    if known not in ROLES:
        raise RowError(f"{where} has the role '{shown(role)}'; use one of {', '.join(ROLES)}")
    return known


def _spoken(raw: dict, role: str, where: str) -> tuple[str, str]:
    """Content and thinking of a message. Thinking is the assistant's alone: on another role the row is mislabelled."""
    content = _text(raw.get("content"), where)
    thinking = next((text for key in THINKING_KEYS if (text := _text(raw.get(key), f"{where}, '{key}'")).strip()), "")
    if thinking and role != "assistant":
        raise RowError(f"{where} ({role}) has thinking; only the assistant thinks")
    if role != "assistant" or thinking or not content.lstrip().startswith("<think>"):
        return content, thinking
    inside, closed, after = content.lstrip().removeprefix("<think>").partition("</think>")
    if not closed:
        raise RowError(f"{where} opens <think> and never closes it")
    return after.lstrip(), inside.strip()


def _text(value: object, where: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        return "".join(_part(part, where) for part in value)
    raise RowError(f"{where} has {kind(value)} as content; use a string or a list of text parts")


def _part(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part["text"]
    of = part.get("type", "unknown") if isinstance(part, dict) else kind(part)
    raise RowError(f"{where} has a content part of type '{shown(of)}'; only text can be learned")


def _calls(raw: dict, role: str, where: str) -> list[dict]:
    calls = raw.get("tool_calls") or ([raw["function_call"]] if raw.get("function_call") else [])
    if not calls:
        return []
    if role != "assistant":
        raise RowError(f"{where} ({role}) has tool calls; only the assistant calls tools")
    if not isinstance(calls, list):
        raise RowError(f"{where} has {kind(calls)} as 'tool_calls'; it must be a list")
    return [_call(call, where) for call in calls]


def _call(raw: object, where: str) -> dict:
    function = raw.get("function", raw) if isinstance(raw, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError(f"{where} has a tool call without a function name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = parse_text(arguments or "{}", f"the arguments of '{shown(function['name'])}' in {where}")
    if arguments is not None and not isinstance(arguments, dict):
        raise RowError(
            f"the arguments of '{shown(function['name'])}' in {where} are {kind(arguments)}; they must be an object"
        )
    identity = {"id": str(raw["id"])} if raw.get("id") else {}
    return identity | {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}


def parse_text(text: str, where: str) -> object:
    """The JSON value that stands as text in a row (a CSV cell, arguments of a call); RowError names `where`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise RowError(f"{where}: nested too deep") from None
    except ValueError as error:
        raise RowError(f"{where}: not valid JSON ({error})") from None
    check_depth(value)
    return value


def _check_order(messages: list[dict], field: str) -> None:
    """Raise RowError for roles out of order; give each tool result the name of the tool that it answers for."""
    roles = [m["role"] for m in messages]
    if "assistant" not in roles:
        raise RowError(f"'{field}' has no assistant message; there is nothing to learn from it")
    if "user" not in roles:
        raise RowError(f"'{field}' has no user message; the assistant answers nobody")
    for role in ("system", "developer"):
        if roles.count(role) > 1:
            raise RowError(f"'{field}' has {roles.count(role)} {role} messages; join them into one, at the start")
        if role in roles and {"user", "assistant", "tool"} & set(roles[: roles.index(role)]):
            raise RowError(
                f"message {roles.index(role) + 1} is a {role} message after the conversation has begun; put it first"
            )
    waiting: list[dict] = []
    for n, message in enumerate(messages, 1):
        if message["role"] == "tool":
            _answer(message, waiting, n)
        else:
            waiting = list(message.get("tool_calls", []))


def _answer(result: dict, waiting: list[dict], n: int) -> None:
    if not waiting:
        raise RowError(f"message {n} is a tool result, but no tool call is waiting for one")
    wanted = result.get("tool_call_id")
    call = next((c for c in waiting if c.get("id", wanted) == wanted), None) if wanted else waiting[0]
    if call is None:
        raise RowError(f"message {n} answers the tool call '{shown(wanted)}', which the assistant did not make")
    waiting.remove(call)
    result.setdefault("name", call["function"]["name"])


def _tools(value: object) -> list[dict]:
    if isinstance(value, str):
        value = parse_text(value or "[]", "'tools'")
    if not value:
        return []
    if not isinstance(value, list):
        raise RowError(f"'tools' is {kind(value)}; it must be a list of functions")
    return [_tool(tool) for tool in value]


def _tool(raw: object) -> dict:
    function = raw.get("function", raw) if isinstance(raw, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError("'tools' holds an entry without a function name")
    return {"type": "function", "function": {key: value for key, value in function.items() if key != "type"}}


def _effort(value: object) -> str:
    if str(value).lower() not in EFFORTS:
        raise RowError(f"'reasoning_effort' is '{shown(value)}'; use {', '.join(EFFORTS)}")
    return str(value).lower()
