"""What an answer may be, as one grammar over the whole of it: channels, tool calls, JSON by its schema.

Thinking stays free. Everything else follows the format that the model was trained on, so that an answer that has to be
JSON is JSON, and a tool call that is demanded comes. The notation is llguidance's variant of Lark, in which `<|end|>` is
the token: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. vLLM takes the same text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

ANY_OBJECT: Schema = {"type": "object"}
# On one line, with or without a blank after a separator: where any blanks are allowed, a model may never end them.
_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_FRAME = r"""
start: aside* ({ends})
aside: <|channel|> ({asides}) <|message|> TEXT <|end|> <|start|> "assistant"
constrain: " "? <|constrain|> "json"
TEXT: /(.|\n)*/
"""
_SHOWN = re.compile(r"<\|(channel|message|start|constrain|end)\|>")  # text to llama.cpp, not special tokens
_SHOWN_FRAME = r"""
TEXT: /([^<]|<+[^<|])*<*/
thought[suffix="<|end|>"]: /(.|\n)*/
"""
_ANSWER = 'answer: <|channel|> "final" constrain? <|message|> {body}\n'
_CALL = (
    'call{n}: (<|channel|> {channel_to} constrain? | {to} <|channel|> "commentary" (" json" | constrain)?)'
    " <|message|> {body} <|call|>\n"
)


def answer_grammar(
    answer: Schema | None, tools: Sequence[Mapping[str, Any]] = (), *, must_call: bool = False
) -> str | None:
    """The grammar of what is generated after the prompt's `<|start|>assistant`; None where anything may come.

    Args:
        answer: the JSON schema of the final channel; None leaves it free.
        tools: the functions that may be called: `name`, and with `strict` the schema `parameters` of its arguments.
        must_call: the turn ends with a call of one of `tools`, never with an answer.
    """
    if answer is None and not must_call and not any(tool.get("strict") for tool in tools):
        return None
    calls = [f"call{n}" for n in range(len(tools))]
    lines = [_FRAME.format(ends=" | ".join(calls if must_call else ["answer", *calls]), asides=_asides(tools))]
    if not must_call:
        lines.append(_ANSWER.format(body="TEXT" if answer is None else _json(answer)))
    for n, tool in enumerate(tools):
        to = f" to=functions.{tool['name']}"
        body = _json((tool.get("parameters") or ANY_OBJECT) if tool.get("strict") else ANY_OBJECT)
        lines.append(_CALL.format(n=n, to=json.dumps(to), channel_to=json.dumps("commentary" + to), body=body))
    return "".join(lines)


def for_llama_cpp(grammar: str) -> str:
    """The same grammar as llama.cpp reads it: in its vocabulary five of harmony's tokens are text, so that text must not have
    them in it, and its llguidance knows no expressions for separators.

    A grammar that it cannot read it leaves out without a word: what comes has to be checked."""
    lines = ["%llguidance {}"]
    for line in grammar.strip().splitlines():
        if not line.startswith("TEXT:"):
            rule, mark, schema = line.partition("%json ")
            rule = _SHOWN.sub(r'"\g<0>"', rule.replace("TEXT <|end|>", "thought"))
            lines.append(rule + (mark and mark + _plain_separators(schema)))
    return "\n".join(lines) + _SHOWN_FRAME


def _plain_separators(line: str) -> str:
    """A schema, and what stands after it in its line."""
    schema, end = json.JSONDecoder().raw_decode(line)
    separators = {"item_separator": ", ", "key_separator": ": "}
    return json.dumps({**schema, "x-guidance": {**_ONE_LINE, **separators}}) + line[end:]


def _asides(tools: Sequence[Any]) -> str:
    """Channels of messages before the last one. Words to the user come before tool calls only."""
    return '"analysis" | "commentary"' if tools else '"analysis"'


def _json(schema: Schema) -> str:
    return "%json " + one_line(schema)


def one_line(schema: Schema) -> str:
    """A schema as llguidance reads it, for JSON on one line."""
    return json.dumps({**schema, "x-guidance": _ONE_LINE})
