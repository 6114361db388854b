"""The messages of a request as harmony renders them: text parts joined, either name of the reasoning read as thinking."""

from collections.abc import Iterator, Mapping
from typing import Any

from shared.harmony import Piece

_ROLES = ("system", "developer", "user", "assistant", "tool")
_TEXTS = ("text", "input_text", "output_text", "refusal")


class Unreadable(ValueError):
    """What was sent under `param` cannot be used; the text says what it may be."""

    def __init__(self, param: str, says: str) -> None:
        super().__init__(f"{param} {says}")
        self.param = param


def message(where: str, given: Any) -> dict[str, Any]:
    """A message of the chat API, which came as `where`. Raises Unreadable."""
    if not isinstance(given, Mapping) or given.get("role") not in _ROLES:
        role = given.get("role") if isinstance(given, Mapping) else given
        raise Unreadable(f"{where}.role", f"cannot be {role!r}: it is system, developer, user, assistant or tool.")
    role = given["role"]
    content = "" if role == "assistant" and given.get("content") is None else given.get("content")
    read = {"role": role, "content": joined(f"{where}.content", content)}
    thinking = given.get("reasoning_content") or given.get("reasoning") or given.get("thinking")
    if thinking and role == "assistant":
        read["thinking"] = joined(f"{where}.reasoning", thinking)
    for name in ("name", "tool_call_id"):
        if given.get(name):
            read[name] = joined(f"{where}.{name}", given[name])
    if given.get("tool_calls"):
        read["tool_calls"] = list(_calls(f"{where}.tool_calls", given["tool_calls"]))
    return read


def joined(where: str, content: Any) -> str:
    """A text, or the text of a list of text parts. Raises Unreadable for anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Unreadable(where, "must be a text or a list of text parts.")
    texts = [_text(part) for part in content]
    if None in texts:
        raise Unreadable(where, "holds something other than text; this model reads text only.")
    return "".join(text for text in texts if text)


def _text(part: Any) -> str | None:
    if not isinstance(part, Mapping) or part.get("type", "text") not in _TEXTS:
        return None
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else None


def _calls(where: str, calls: Any) -> Iterator[dict[str, Any]]:
    for n, call in enumerate(calls if isinstance(calls, list) else [calls]):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise Unreadable(
                f"{where}[{n}]", "is no call of a function: it needs function.name and function.arguments."
            )
        if not isinstance(function.get("arguments"), str | Mapping | None):
            raise Unreadable(f"{where}[{n}].function.arguments", "must be JSON, as a text.")
        called = {"name": function["name"], "arguments": function.get("arguments")}
        yield {**({"id": call["id"]} if call.get("id") else {}), "type": "function", "function": called}


def begun(last: Mapping[str, Any]) -> list[Piece]:
    """What the model has said already in an answer that it is to go on with, as it would have written it.

    Raises Unreadable when `last`, a message as `message` reads it, is no such answer."""
    said = [(name, text) for name, text in (("analysis", last.get("thinking")), ("final", last["content"])) if text]
    if last["role"] != "assistant" or last.get("tool_calls") or not said:
        raise Unreadable("continue_final_message", "needs an answer in text as the last message, after a question.")
    between = [_piece("<|end|>"), _piece("<|start|>"), _piece("assistant")]
    pieces: list[Piece] = []
    for name, text in said:
        pieces += between if pieces else []
        pieces += [_piece("<|channel|>"), _piece(name), _piece("<|message|>")]
        pieces.append(Piece(text, "assistant", None, "content", None))
    return pieces


def _piece(text: str) -> Piece:
    return Piece(text, "assistant", None, "special" if text.startswith("<|") else "header", None)
