"""Data sets for the tests of their pages: a line of a file, a conversation with everything in it, a data set made of lines."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from services.cli.client import Client
from tests.browser.conftest import Site

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}


def line(question: str, answer: str, **extra: object) -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **extra}]}
    )


def talk(*, turns: int = 1, **extra: Any) -> str:
    """A conversation with thinking, an effort and tools."""
    begin = [
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "thinking": "I must look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "assistant", "content": "It is 12 °C.\n\tMild.", "thinking": "Now I know."},
    ]
    again = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes.", "thinking": "Am I?"}]
    return json.dumps({"messages": begin + again * (turns - 1), "tools": [TOOL], "reasoning_effort": "high", **extra})


@pytest.fixture
def made(site: Site) -> Callable[..., str]:
    """`made("name", *lines)` is a data set of these lines, by its reference."""

    def make(name: str, *lines: str) -> str:
        content = "".join(f"{each}\n" for each in lines).encode()
        client = Client(site.url, key=site.key)
        return client.call("POST", "/datasets", params={"name": name, "filename": f"{name}.jsonl"}, content=content)[
            "reference"
        ]

    return make
