"""Every accepted format becomes the same canonical rows, and the card says what is in them."""

import json
from pathlib import Path

import pytest

from shared.datasets import Card, ingest, is_validation, rows, stream
from shared.datasets.card import Rows

TWO = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
THOUGHT = [TWO[0], TWO[1] | {"thinking": "Two and two."}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLED = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "c1"} | CALL]},
    {"role": "tool", "content": "12 °C", "name": "weather", "tool_call_id": "c1"},
    {"role": "assistant", "content": "It is 12 °C."},
]


def read(tmp_path: Path, content: bytes, filename: str = "talks.jsonl", **options: object) -> tuple[Card, list[dict]]:
    (tmp_path / "upload").write_bytes(content)
    card = ingest(tmp_path / "upload", filename, tmp_path / "set", **{"count_tokens": None, "name": "talks"} | options)
    return card, list(stream(tmp_path / "set"))


def jsonl(*values: object) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


CASES = {
    "plain messages": ("messages", {"messages": TWO}, {"messages": TWO}),
    "text parts": (
        "messages",
        {
            "messages": [
                {"role": "User", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
                TWO[1],
            ]
        },
        {"messages": TWO},
    ),
    "thinking": ("messages", {"messages": THOUGHT}, {"messages": THOUGHT}),
    "reasoning": ("messages", {"messages": [TWO[0], TWO[1] | {"reasoning": "Two and two."}]}, {"messages": THOUGHT}),
    "reasoning_content": (
        "messages",
        {"messages": [TWO[0], TWO[1] | {"reasoning_content": "Two and two."}]},
        {"messages": THOUGHT},
    ),
    "think tags": (
        "messages",
        {"messages": [TWO[0], {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\n4"}]},
        {"messages": THOUGHT},
    ),
    "effort": (
        "messages",
        {"messages": TWO, "reasoning_effort": "High"},
        {"messages": TWO, "reasoning_effort": "high"},
    ),
    "a tool call with arguments as text": (
        "messages",
        {
            "tools": [TOOL["function"]],
            "messages": [
                CALLED[0],
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}],
                },
                {"role": "tool", "content": "12 °C", "tool_call_id": "c1"},
                CALLED[3],
            ],
        },
        {"messages": CALLED, "tools": [TOOL]},
    ),
    "the older function role": (
        "messages",
        {
            "messages": [
                CALLED[0],
                {"role": "assistant", "function_call": CALL["function"]},
                {"role": "function", "content": "12 °C"},
                CALLED[3],
            ]
        },
        {
            "messages": [
                CALLED[0],
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": "12 °C", "name": "weather"},
                CALLED[3],
            ]
        },
    ),
    "Multilingual-Thinking": (
        "messages",
        {
            "reasoning_language": "French",
            "developer": "Answer.",
            "user": "2+2?",
            "analysis": "Deux et deux.",
            "final": "4",
            "messages": [
                {"role": "system", "content": "reasoning language: French\n\nAnswer.", "thinking": None},
                {"role": "user", "content": "2+2?", "thinking": None},
                {"role": "assistant", "content": "4", "thinking": "Deux et deux."},
            ],
        },
        {
            "messages": [
                {"role": "system", "content": "reasoning language: French\n\nAnswer."},
                TWO[0],
                TWO[1] | {"thinking": "Deux et deux."},
            ]
        },
    ),
    "ShareGPT": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
        {"messages": TWO},
    ),
    "ShareGPT's other names": (
        "sharegpt",
        {"system": "Be brief.", "conversation": [{"from": "user", "value": "2+2?"}, {"from": "chatgpt", "value": "4"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, *TWO]},
    ),
    "ShareGPT with tools": (
        "sharegpt",
        {
            "tools": json.dumps([TOOL["function"]]),
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": json.dumps({"id": "c1"} | CALL["function"])},
                {"from": "observation", "value": "12 °C", "tool_call_id": "c1"},
                {"from": "model", "value": "It is 12 °C."},
            ],
        },
        {"messages": CALLED, "tools": [TOOL]},
    ),
    "messages under ShareGPT's column": ("messages", {"conversations": TWO}, {"messages": TWO}),
    "Alpaca": (
        "alpaca",
        {"instruction": "Add.", "input": "2 and 2", "output": "4", "system": "Be brief."},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Add.\n\n2 and 2"},
                TWO[1],
            ]
        },
    ),
    "Alpaca without input": ("alpaca", {"instruction": "2+2?", "input": "", "output": "4"}, {"messages": TWO}),
    "prompt and completion": ("prompt_completion", {"prompt": "2+2?", "completion": "4"}, {"messages": TWO}),
    "prompt and response": (
        "prompt_completion",
        {"prompt": "2+2?", "response": "<think>Two and two.</think>4"},
        {"messages": THOUGHT},
    ),
    "question and answer": ("prompt_completion", {"Question": "2+2?", "Answer": "4"}, {"messages": TWO}),
    "input and output": (
        "prompt_completion",
        {"input": "2+2?", "output": "4", "reasoning": "Two and two."},
        {"messages": THOUGHT},
    ),
    "prompt and completion as messages": (
        "prompt_completion",
        {"prompt": TWO[:1], "completion": TWO[1:]},
        {"messages": TWO},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_format_becomes_canonical_rows(tmp_path: Path, case: str) -> None:
    name, row, expected = CASES[case]
    card, found = read(tmp_path, jsonl(row))
    assert found == [expected]
    assert json.dumps(found[0]) == json.dumps(expected), "the keys stand in the documented order"
    assert (card.format, card.rows.accepted, card.columns) == (name, 1, list(row))


def test_the_card_counts_what_is_in_the_rows(tmp_path: Path) -> None:
    german = {
        "messages": [
            {"role": "user", "content": "Was ist das und wie geht es dir?"},
            {"role": "assistant", "content": "Das ist gut und es geht mir auch gut."},
        ]
    }
    marked = {
        "messages": [{"role": "user", "content": "What does the <|start|> in this text mean to you?"}, TWO[1], TWO[0]]
    }
    content = (
        jsonl({"messages": THOUGHT, "reasoning_effort": "low"}, german, german, marked, {"messages": CALLED})
        + b"\n  \n{broken\n"
    )
    reports: list[tuple[int, int, Rows]] = []
    card, found = read(
        tmp_path, content, count_tokens=lambda row: 100 * len(row["messages"]), licence="MIT", notes="mine",
        progress=lambda *report: reports.append(report),
    )  # fmt: skip
    assert card.rows.model_dump() == {"read": 6, "accepted": 5, "rejected": 1, "blank": 2, "duplicate": 1}
    assert (card.turns.min, card.turns.max, card.turns.mean, card.turns.histogram.counts[:2]) == (1, 2, 1.2, [4, 1])
    assert (card.tokens.total, card.tokens.max, card.tokens.mean) == (1300, 400, 260.0)
    assert dict(zip(card.tokens.histogram.edges, card.tokens.histogram.counts, strict=True))[256] == 2
    assert card.languages["de"] == 0.4
    assert (card.reasoning.rows, card.reasoning.share, card.reasoning.by_effort) == (1, 0.2, {"low": 1})
    assert card.tools == 1
    assert card.splits.train + card.splits.validation == 5
    assert card.splits.validation == sum(is_validation(row, 0.1) for row in found)
    assert [count for note, count in card.warnings.items() if "<|start|>" in note or "end with" in note] == [1, 1]
    assert (card.source, card.licence, card.notes, card.parents) == ("talks.jsonl", "MIT", "mine", [])
    assert card.sha256.startswith(card.version) and len(card.version) == 12
    assert card.bytes == (tmp_path / "set" / "data.jsonl").stat().st_size
    assert Card.load(tmp_path / "set") == card
    assert reports[-1] == (len(content), len(content), card.rows)


def test_what_is_not_used_of_a_row_is_counted(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": ""}, TWO[0], TWO[1] | {"weight": 0}]}
    card, found = read(tmp_path, jsonl(row, {"messages": TWO}))
    assert found == [{"messages": TWO}] * 2
    assert card.warnings == {
        "rows with an empty system message, which was left out": 1,
        "rows with the message field 'weight', which is not used": 1,
    }


def test_the_version_follows_from_the_content_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    assert read(one, jsonl({"messages": TWO}))[0].version == read(other, b"prompt,completion\n2+2?,4\n")[0].version


def test_an_existing_destination_is_left_alone(tmp_path: Path) -> None:
    read(tmp_path, jsonl({"messages": TWO}))
    with pytest.raises(FileExistsError):
        read(tmp_path, jsonl({"messages": THOUGHT}))
    assert rows(tmp_path / "set")[0] == [{"index": 0, "messages": TWO}]
