"""Preferences and plain text become data sets as conversations do, and a data set has one kind."""

import json
from pathlib import Path

import pytest

from shared.datasets import Card, DatasetError, append, mix, rejected, rows
from tests.unit.test_datasets_formats import THOUGHT, TOOL, TWO, jsonl, read

USER, GOOD = TWO
BAD = {"role": "assistant", "content": "5"}
PAIR = {"messages": [USER], "chosen": GOOD, "rejected": BAD}
SYSTEM = {"role": "system", "content": "Be brief."}

PREFERENCES = {
    "strings": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, PAIR),
    "canonical": (PAIR, PAIR),
    "messages": ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, PAIR),
    "the prompt is in both": ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, PAIR),
    "the prompt is there as well": ({"prompt": "2+2?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, PAIR),
    "several turns are shared": (
        {"chosen": [*TWO, USER, GOOD], "rejected": [*TWO, USER, BAD]},
        {"messages": [*TWO, USER], "chosen": GOOD, "rejected": BAD},
    ),
    "instruction and input": (
        {"instruction": "Add.", "input": "2 and 2", "chosen": "4", "rejected": "5"},
        PAIR | {"messages": [{"role": "user", "content": "Add.\n\n2 and 2"}]},
    ),
    "question and system": (
        {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
        PAIR | {"messages": [SYSTEM, USER]},
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "2+2?"}],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
        PAIR,
    ),
    "thinking": (
        {"prompt": "2+2?", "chosen": "<think>Two and two.</think>4", "rejected": "5"},
        PAIR | {"chosen": THOUGHT[1]},
    ),
    "tools and effort": (
        {"prompt": "2+2?", "chosen": "4", "rejected": "5", "tools": [TOOL], "reasoning_effort": "low"},
        PAIR | {"tools": [TOOL], "reasoning_effort": "low"},
    ),
    "an answer that is JSON": (
        {"prompt": "2+2?", "chosen": '{"sum": 4}', "rejected": "5"},
        PAIR | {"chosen": {"role": "assistant", "content": '{"sum": 4}'}},
    ),
}
BROKEN = {
    "no prompt": ({"chosen": "4", "rejected": "5"}, "it has no prompt"),
    "no difference": ({"prompt": "2+2?", "chosen": "4", "rejected": "4"}, "are the same"),
    "null": ({"prompt": "2+2?", "chosen": "4", "rejected": None}, "'rejected' is null"),
    "a number": ({"prompt": "2+2?", "chosen": "4", "rejected": 5}, "'rejected' is a number; it must be an answer"),
    "empty": ({"prompt": "2+2?", "chosen": "4", "rejected": " "}, "empty content"),
    "several answers": (
        {"chosen": [USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
        "'rejected' has 3 messages after what both share",
    ),
    "nobody answers": ({"prompt": [USER], "chosen": [USER], "rejected": [BAD]}, "'chosen' has no assistant message"),
}


@pytest.mark.parametrize("case", PREFERENCES)
def test_each_spelling_of_a_preference_is_the_same_row(tmp_path: Path, case: str) -> None:
    given, expected = PREFERENCES[case]
    card, (row,) = read(tmp_path, jsonl(given))
    assert row == expected
    assert (card.kind, card.format) == ("preferences", "preference")
    assert card.turns.max == [m["role"] for m in row["messages"]].count("user")


@pytest.mark.parametrize("case", BROKEN)
def test_a_preference_that_compares_nothing_is_rejected(tmp_path: Path, case: str) -> None:
    broken, reason = BROKEN[case]
    card, found = read(tmp_path, jsonl(PAIR, broken))
    (why,), total = rejected(tmp_path / "set")
    assert (card.rows.accepted, total, found) == (1, 1, [PAIR])
    assert reason in why["reason"]


def test_messages_in_a_cell_of_csv_are_read(tmp_path: Path) -> None:
    sides = [json.dumps([USER, answer]).replace('"', '""') for answer in (GOOD, BAD)]
    _, found = read(tmp_path, f'chosen,rejected\n"{sides[0]}","{sides[1]}"\n'.encode(), "pairs.csv")
    assert found == [PAIR]


def test_search_and_statistics_see_both_answers(tmp_path: Path) -> None:
    thought = PAIR | {"rejected": BAD | {"thinking": "Perhaps five."}}
    card, _ = read(tmp_path, jsonl(PAIR, PAIR, thought))
    assert (card.reasoning.rows, card.rows.duplicate) == (1, 1)
    assert [row["index"] for row in rows(tmp_path / "set", query="perhaps")[0]] == [2]


def test_a_text_is_kept_to_the_letter(tmp_path: Path) -> None:
    text = "  Once upon\n\na <|end|> time … 🙂"
    card, found = read(tmp_path, jsonl({"text": text, "id": 7}, {"text": " "}, {"text": 5}, {"text": None}))
    assert found == [{"text": text}] and card.kind == card.format == "text"
    assert card.rows.rejected == 3 and (card.turns.max, card.reasoning.rows) == (0, 0)
    assert "special token" in next(iter(card.warnings))
    assert rows(tmp_path / "set", query="UPON")[1] == 1


@pytest.mark.parametrize("name", ["book.txt", "BOOK.TXT", "notes.md"])
def test_a_plain_file_is_one_document_unless_form_feeds_part_it(tmp_path: Path, name: str) -> None:
    card, found = read(tmp_path, b"\xef\xbb\xbf\n# One\n\nFirst.\n\f\n\fTwo\n\n\fThree\n", name)
    assert [row["text"] for row in found] == ["# One\n\nFirst.", "Two", "Three"]
    assert card.file_format == "text" and not any("continues" in row for row in found)


def test_a_long_document_becomes_rows_of_whole_paragraphs_that_say_that_it_goes_on(tmp_path: Path) -> None:
    document = "\n\n".join(f"Paragraph {n}. " + "word " * 200 for n in range(40))
    card, found = read(tmp_path, document.encode(), "book.txt")
    assert "".join(row["text"] for row in found) == document.rstrip()
    assert [row.get("continues", False) for row in found] == [True] * (len(found) - 1) + [False]
    assert len(found) == 5 and all(row["text"].startswith("Paragraph") for row in found)
    (tmp_path / "again").mkdir()
    again, same = read(tmp_path / "again", (tmp_path / "set" / "data.jsonl").read_bytes())
    assert same == found and again.version == card.version, "the rows of a data set make the same data set"


def test_a_plain_file_of_rows_is_read_as_rows(tmp_path: Path) -> None:
    card, _ = read(tmp_path, jsonl({"messages": TWO}), "talks.txt")
    assert (card.kind, card.file_format) == ("conversations", "jsonl")


@pytest.mark.parametrize("begins", ["[a link](b)", "<p>a</p>", "prompt\nmore", "{braces}", "- a, b\n{x}"])
def test_markdown_may_begin_as_data_does(tmp_path: Path, begins: str) -> None:
    card, found = read(tmp_path, begins.encode(), "page.md")
    assert found == [{"text": begins}] and card.kind == "text"


def test_a_line_that_is_no_text_is_rejected_and_the_rest_is_kept(tmp_path: Path) -> None:
    card, found = read(tmp_path, b"One.\n\xff\xfe\nTwo.\n", "notes.txt")
    assert found == [{"text": "One.\nTwo."}]
    assert "line 2: invalid UTF-8" in rejected(tmp_path / "set")[0][0]["reason"] and card.rows.rejected == 1


@pytest.mark.parametrize(
    ("first", "second"), [({"messages": TWO}, PAIR), (PAIR, {"text": "a"}), ({"text": "a"}, {"messages": TWO})]
)
def test_two_kinds_in_one_file_are_refused(tmp_path: Path, first: dict, second: dict) -> None:
    with pytest.raises(DatasetError, match=r"mixes two kinds of rows: line 2 is of .* put them into two files"):
        read(tmp_path, jsonl(first, second))
    assert not (tmp_path / "set").exists()


def test_a_mix_is_of_one_kind_and_keeps_it(tmp_path: Path) -> None:
    sets = {}
    for name, given in (
        ("a", [PAIR, PAIR | {"messages": [SYSTEM, USER]}]),
        ("b", [PAIR | {"chosen": BAD, "rejected": GOOD}] * 2),
        ("c", [{"messages": TWO}]),
    ):
        (tmp_path / name).mkdir()
        read(tmp_path / name, jsonl(*given), name=name)
        sets[name] = tmp_path / name / "set"
    card = mix(sets["a"], sets["b"], tmp_path / "mixed", share=0.5, name="mixed")
    assert (card.kind, card.rows.accepted) == ("preferences", 4)
    with pytest.raises(DatasetError, match="holds preferences and c holds conversations"):
        mix(sets["a"], sets["c"], tmp_path / "other", share=0.5, name="other")
    with pytest.raises(DatasetError, match="a data set of preferences; a conversation cannot be added"):
        append(sets["a"], {"messages": TWO}, tmp_path / "more", name="a", source="chat")


def test_a_card_from_before_there_were_kinds_is_of_conversations(tmp_path: Path) -> None:
    read(tmp_path, jsonl({"messages": TWO}))
    file = tmp_path / "set" / "card.json"
    card = json.loads(file.read_text())
    del card["kind"]
    file.write_text(json.dumps(card))
    assert Card.load(tmp_path / "set").kind == "conversations"
