"""The shapes in which people keep rows, told apart by their columns, and the way to canonical rows."""

from itertools import takewhile

from shared.datasets.canonical import SIDES, THINKING_KEYS, conversation, kind, parse_text, shown
from shared.datasets.errors import RowError
from shared.schemas import DataKind

EXAMPLES = {
    "messages": '{"messages": [{"role": "user", "content": "2+2?"}, '
    '{"role": "assistant", "content": "4", "thinking": "Two and two."}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}',
    "alpaca": '{"instruction": "Add the numbers.", "input": "2 and 2", "output": "4"}',
    "prompt_completion": '{"prompt": "2+2?", "completion": "<think>Two and two.</think>4"}',
    "preference": '{"prompt": "2+2?", "chosen": "4", "rejected": "5"}',
    "text": '{"text": "Two and two are four."}',
}
KINDS: dict[str, DataKind] = {
    **dict.fromkeys(("messages", "sharegpt", "alpaca", "prompt_completion"), "conversations"),
    "preference": "preferences",
    "text": "text",
}
CANONICAL: dict[DataKind, str] = {"conversations": "messages", "preferences": "preference", "text": "text"}
COLUMNS_OF: dict[DataKind, tuple[str, ...]] = {
    "conversations": ("messages", "tools", "reasoning_effort"),
    "preferences": ("messages", *SIDES, "tools", "reasoning_effort"),
    "text": ("text",),
}
LISTS = ("messages", "conversations", "conversation")
ANSWERS = ("output", "response")
PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output"))
PROMPTS = (*LISTS, "prompt", "instruction", "question", "input")
COLUMNS = {*LISTS, *ANSWERS, *SIDES, "instruction", "text", *(column for pair in PAIRS for column in pair)}
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
    if kind_of_columns(row) == "preferences":
        return "preference"
    if field := _first(row, LISTS):
        return "sharegpt" if _speaks(row[field]) else "messages"
    if row.get("instruction") is not None and _first(row, ANSWERS):
        return "alpaca"
    if _pair(row):
        return "prompt_completion"
    return "text" if row.get("text") is not None else None


def kind_of_columns(row: dict) -> DataKind | None:
    """The kind of rows that have the columns of `row`, whatever stands in them; None where they say nothing."""
    names = {str(key).strip().lower() for key in row}
    if names.issuperset(SIDES):
        return "preferences"
    if names & {*LISTS, "instruction"} or any(names.issuperset(pair) for pair in PAIRS):
        return "conversations"
    return "text" if "text" in names else None


def convert(row: dict, format: str, notes: set[str]) -> dict:
    """The canonical row of `row`, read as `format`. Raises RowError with the reason; see `conversation` for `notes`."""
    row = _lower(row)
    if format == "preference":
        return _preference(row, notes)
    if format == "text":
        return _text(row)
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


def _text(row: dict) -> dict:
    if row.get("text") is None:
        raise RowError(_misfit(row, "text") if "text" not in row else "'text' is null")
    if not _string(row, "text").strip():
        raise RowError("'text' is empty")
    return {"text": row["text"]} | ({"continues": True} if row.get("continues") is True else {})


def _preference(row: dict, notes: set[str]) -> dict:
    """A prompt and two answers. The prompt has columns of its own, or it is what both conversations begin with."""
    if missing := next((side for side in SIDES if row.get(side) is None), None):
        raise RowError(_misfit(row, "preference") if missing not in row else f"'{missing}' is null")
    answers = [_answer(row[side], side) for side in SIDES]
    if any(_asks(answer) for answer in answers):
        both = takewhile(lambda pair: pair[0] == pair[1], zip(*answers, strict=False))
        prompt = [message for message, _ in both]
        answers = [answer[len(prompt) :] for answer in answers]
    else:
        prompt = _prompt(row)
    if answers[0] == answers[1]:
        raise RowError("'chosen' and 'rejected' are the same; there is nothing to prefer")
    for side, answer in zip(SIDES, answers, strict=True):
        if len(answer) != 1:
            raise RowError(f"'{side}' has {len(answer)} messages after what both share; each must be one answer")
    prompt = _with_system(prompt, row.get("system"))
    tools, effort = row.get("tools"), row.get("reasoning_effort")
    whole = [
        conversation([*prompt, *answer], tools=tools, effort=effort, notes=notes, field=side)
        for side, answer in zip(SIDES, answers, strict=True)
    ]
    chosen, rejected = (found["messages"].pop() for found in whole)
    if (chosen["role"], rejected["role"]) != ("assistant", "assistant"):
        raise RowError("'chosen' and 'rejected' must be messages of the assistant")
    return whole[0] | {"chosen": chosen, "rejected": rejected}


def _answer(value: object, side: str) -> list:
    """A side as messages: it may be the answer's text, one message, or a conversation that ends with the answer."""
    value = _structured(value)
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    messages = value if isinstance(value, list) else [value]
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise RowError(f"'{side}' is {kind(value)}; it must be an answer: a string, a message, or a list of messages")
    return [_spoken(m, f"'{side}', message {n}") if "from" in m else m for n, m in enumerate(messages, 1)]


def _asks(messages: list) -> bool:
    return str(messages[0].get("role", "")).lower() != "assistant"


def _prompt(row: dict) -> list:
    field = _first(row, PROMPTS)
    if not field:
        raise RowError("it has no prompt: give it as 'prompt', or as what both 'chosen' and 'rejected' begin with")
    value = _structured(row[field])
    if isinstance(value, list):
        return [
            _spoken(m, f"message {n}") if isinstance(m, dict) and "from" in m else m for n, m in enumerate(value, 1)
        ]
    return [{"role": "user", "content": _question(row) if field == "instruction" else _string(row, field)}]


def _structured(value: object) -> object:
    """Messages that stand as JSON text in a CSV cell; any other text as it is, JSON or not."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = parse_text(value, "")
    except RowError:
        return value
    messages = found if isinstance(found, list) else [found]
    said = messages and all(isinstance(m, dict) and ("role" in m or "from" in m) for m in messages)
    return found if said else value


def _question(row: dict) -> str:
    """An instruction, and the input that it is about."""
    extra = _first(row, ("input", "context"))
    more = f"\n\n{_string(row, extra)}" if extra and _string(row, extra).strip() else ""
    return _string(row, "instruction") + more


def _single(row: dict, format: str) -> list[dict]:
    """The messages of a row that holds one question and one answer."""
    if format == "alpaca":
        if row.get("instruction") is None or not (answer := _first(row, ANSWERS)):
            raise RowError(
                _misfit(row, format) if "instruction" not in row else "its instruction or its output is null"
            )
        question = _question(row)
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
