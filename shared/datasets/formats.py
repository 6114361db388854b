"""The four shapes in which people keep conversations, told apart by their columns, and the way to canonical rows."""

from shared.datasets.canonical import THINKING_KEYS, conversation, kind, parse_text, shown
from shared.datasets.errors import RowError

EXAMPLES = {
    "messages": '{"messages": [{"role": "user", "content": "2+2?"}, '
    '{"role": "assistant", "content": "4", "thinking": "Two and two."}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}',
    "alpaca": '{"instruction": "Add the numbers.", "input": "2 and 2", "output": "4"}',
    "prompt_completion": '{"prompt": "2+2?", "completion": "<think>Two and two.</think>4"}',
}
LISTS = ("messages", "conversations", "conversation")
ANSWERS = ("output", "response")
PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output"))
COLUMNS = {*LISTS, *ANSWERS, "instruction", *(column for pair in PAIRS for column in pair)}
SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "tool_response", "function_response", "observation"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}


def detect(row: dict) -> str | None:
    """The format whose columns `row` has (a key of EXAMPLES), or None. Letter case of the columns does not matter."""
    row = _lower(row)
    if field := _first(row, LISTS):
        return "sharegpt" if _speaks(row[field]) else "messages"
    if row.get("instruction") is not None and _first(row, ANSWERS):
        return "alpaca"
    return "prompt_completion" if _pair(row) else None


def convert(row: dict, format: str, notes: set[str]) -> dict:
    """The canonical row of `row`, read as `format`. Raises RowError with the reason; see `conversation` for `notes`."""
    row = _lower(row)
    if format in ("messages", "sharegpt"):
        field = _first(row, LISTS)
        if not field:
            named = next((name for name in LISTS if name in row), None)
            raise RowError(f"'{named}' is null" if named else _misfit(row, format))
        messages = _listed(row[field], field)
        if format == "sharegpt" and isinstance(messages, list):
            messages = [_spoken(message, f"message {n}") for n, message in enumerate(messages, 1)]
    else:
        field, messages = "row", _single(row, format)
    messages = _with_system(messages, row.get("system"))
    return conversation(messages, tools=row.get("tools"), effort=row.get("reasoning_effort"), notes=notes, field=field)


def accepted_formats() -> str:
    """The formats with an example line each, for error messages."""
    return "Accepted formats, one row each:\n" + "\n".join(f"  {name}: {line}" for name, line in EXAMPLES.items())


def _lower(row: dict) -> dict:
    return {str(key).strip().lower(): value for key, value in row.items()}


def _first(row: dict, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _pair(row: dict) -> tuple[str, str] | None:
    return next((pair for pair in PAIRS if all(row.get(column) is not None for column in pair)), None)


def _misfit(row: dict, format: str) -> str:
    columns = ", ".join(shown(key) for key in list(row)[:10]) or "none"
    return f"its columns ({columns}) do not fit the format of this file, {format}"


def _listed(value: object, field: str) -> object:
    """A list of messages; in a CSV cell, and in some Parquet files, it stands as JSON text."""
    return parse_text(value, f"'{field}'") if isinstance(value, str) else value


def _speaks(value: object) -> bool:
    try:
        value = _listed(value, "")
    except RowError:
        return False
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]


def _spoken(raw: object, where: str) -> dict:
    if not isinstance(raw, dict):
        raise RowError(f"{where} is {kind(raw)}; it must be an object with 'from' and 'value'")
    speaker = raw.get("from", raw.get("role"))
    role = SPEAKERS.get(str(speaker).lower())
    if role is None:
        raise RowError(f"{where} is from '{shown(speaker)}'; use human, gpt, system or tool")
    content = raw.get("value", raw.get("content"))
    rest = {key: value for key, value in raw.items() if key not in ("from", "value", "role", "content")}
    if role == "call":
        call = parse_text(content, f"the tool call in {where}") if isinstance(content, str) else content
        return rest | {"role": "assistant", "content": "", "tool_calls": call if isinstance(call, list) else [call]}
    return rest | {"role": role, "content": content}


def _single(row: dict, format: str) -> list[dict]:
    """The messages of a row that holds one question and one answer."""
    if format == "alpaca":
        if row.get("instruction") is None or not (answer := _first(row, ANSWERS)):
            raise RowError(
                _misfit(row, format) if "instruction" not in row else "its instruction or its output is null"
            )
        extra = _first(row, ("input", "context"))
        question = _string(row, "instruction") + (
            f"\n\n{_string(row, extra)}" if extra and _string(row, extra).strip() else ""
        )
    else:
        if not (pair := _pair(row)):
            raise RowError(_misfit(row, format))
        if isinstance(row[pair[0]], list) and isinstance(row[pair[1]], list):  # TRL's conversational form
            return row[pair[0]] + row[pair[1]]
        question, answer = _string(row, pair[0]), pair[1]
    for column, text in (("instruction" if format == "alpaca" else pair[0], question), (answer, _string(row, answer))):
        if not text.strip():
            raise RowError(f"'{column}' is empty")
    thinking = {key: row[key] for key in THINKING_KEYS if row.get(key)}
    return [{"role": "user", "content": question}, {"role": "assistant", "content": row[answer], **thinking}]


def _string(row: dict, column: str) -> str:
    if not isinstance(row[column], str):
        raise RowError(f"'{column}' is {kind(row[column])}; it must be a string")
    return row[column]


def _with_system(messages: object, system: object) -> object:
    """Messages with the text of a `system` column in front, unless they bring a system message of their own."""
    if not isinstance(system, str) or not system.strip() or not isinstance(messages, list):
        return messages
    own = any(isinstance(m, dict) and m.get("role") == "system" for m in messages)
    return messages if own else [{"role": "system", "content": system}, *messages]
