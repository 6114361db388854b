"""Rejected rows are counted by what is wrong with them, whatever line they stand on and whatever they say."""

from pathlib import Path

import pytest

from shared.datasets import ingest, kind_of, kinds, rejected, without_place


@pytest.mark.parametrize(
    ("reason", "left"),
    [
        ("line 4: 'messages' is null", "'messages' is null"),
        ("row 12: it holds NaN, which is not JSON", "it holds NaN, which is not JSON"),
        ("train 00001.parquet row 3: it is null", "train 00001.parquet: it is null"),
        ("line 1: message 2 says line 3: no", "message 2 says line 3: no"),
        ("no place at all", "no place at all"),
    ],
)
def test_the_place_is_left_out(reason: str, left: str) -> None:
    assert without_place(reason) == left


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("line 4: message 1 has the role 'wizard'; use one", "line 77: message 12 has the role 'elf'; use one"),
        ("line 1: invalid JSON at column 45: x", "line 1: invalid JSON at column 4: x"),
        ("line 1: message 2 (user) has empty content", "line 2: message 3 (assistant) has empty content"),
    ],
)
def test_what_is_particular_to_a_row_makes_no_kind(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)


def test_our_own_words_make_a_kind() -> None:
    assert kind_of("line 1: 'messages' is null") != kind_of("line 1: 'conversations' is null")


def test_kinds_are_counted_and_found_again(tmp_path: Path) -> None:
    good = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    (tmp_path / "file").write_bytes(good + b'{"messages": []}\n' * 3 + b"{torn\n" * 7)
    ingest(tmp_path / "file", "file.jsonl", tmp_path / "set", count_tokens=None, name="set")
    found = kinds(tmp_path / "set")
    assert list(found.values()) == [7, 3]
    for kind, count in found.items():
        page, total = rejected(tmp_path / "set", 1, 2, kind=kind)
        assert (len(page), total) == (2, count)
        assert {kind_of(row["reason"]) for row in page} == {kind}
