"""What holds for every file: no row is lost, text survives, sides are stable, pages agree, memory is small."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.datasets import DatasetError, ingest, is_validation, rows, stream

ROOT = Path(__file__).parents[2]


def row(question: str, answer: str, **rest: object) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer} | rest]}


def build(directory: Path, values: list[dict]) -> Path:
    (directory / "upload.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    ingest(directory / "upload.jsonl", "upload.jsonl", directory / "set", count_tokens=None, name="set")
    return directory / "set"


GOOD = json.dumps(row("a", "b")).encode()
NAMES = st.sampled_from(["messages", "role", "content", "thinking", "tool_calls", "tools", "from", "value"])
SCALARS = st.none() | st.booleans() | st.floats() | st.text(max_size=8)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "bot"])
TALKS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": st.text(max_size=3)}), max_size=5)
JUNK = st.one_of(
    st.sampled_from([GOOD, b"", b"  \t"]),
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")),
    TREES.map(lambda tree: json.dumps(tree).encode()),
    TALKS.map(lambda talk: json.dumps({"messages": talk}).encode()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(JUNK, max_size=12))
def test_every_line_is_accepted_rejected_or_blank(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "upload").write_bytes(b"\n".join([GOOD, *lines, b""]))
        card = ingest(directory / "upload", "upload.jsonl", directory / "set", count_tokens=None, name="set")
        kept = (directory / "set" / "data.jsonl").read_bytes().splitlines()
        refused = (directory / "set" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert card.rows.read == card.rows.accepted + card.rows.rejected
    assert card.rows.read + card.rows.blank == len(lines) + 1
    assert (len(kept), len(refused)) == (card.rows.accepted, card.rows.rejected)
    assert card.rows.duplicate == len(kept) - len(set(kept))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)] * 3),
        min_size=1,
        max_size=6,
    )
)
def test_text_arrives_as_it_was_written(texts: list[tuple[str, str, str]]) -> None:
    expected = [row(question, f"A{answer}", thinking=thinking) for question, answer, thinking in texts]
    with tempfile.TemporaryDirectory() as name:
        assert list(stream(build(Path(name), expected))) == expected


def test_a_row_is_on_the_same_side_in_every_file_and_order(tmp_path: Path) -> None:
    values = [row(f"question {n}", f"answer {n}") for n in range(2000)]
    sides = {json.dumps(value): is_validation(value, 0.1) for value in values}
    random.Random(1).shuffle(values)
    paged, _ = rows(build(tmp_path, values), limit=2000)
    assert all(is_validation(value, 0.1) == sides[json.dumps({"messages": value["messages"]})] for value in paged)
    assert 140 < sum(sides.values()) < 260


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_validation_share_only_adds_rows(question: str, one: float, other: float) -> None:
    value = row(question, "b")
    assert is_validation(value, min(one, other)) <= is_validation(value, max(one, other))
    assert not is_validation(value, 0) and is_validation(value, 1)


def test_a_share_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        is_validation(row("a", "b"), 10)


def test_pages_are_found_deep_in_a_file(tmp_path: Path) -> None:
    directory = build(tmp_path, [row(f"question {n}", "é" * (n % 7 + 1)) for n in range(3456)])
    assert len((directory / "data.index").read_text().split()) == 4
    for offset in (0, 999, 1000, 2345, 3450):
        page, total = rows(directory, offset, 10)
        assert total == 3456
        assert [found["messages"][0]["content"] for found in page] == [
            f"question {n}" for n in range(offset, min(offset + 10, 3456))
        ]
        assert [found["index"] for found in page] == list(range(offset, min(offset + 10, 3456)))
    assert rows(directory, 3456) == ([], 3456)
    with pytest.raises(ValueError, match="starts at 0"):
        rows(directory, -1)


def test_a_search_finds_text_and_not_the_file_format(tmp_path: Path) -> None:
    values = [row('Say "HÉ"\nnow', "ok"), row("b", "no", thinking="Hé, hmm"), row("c", "nothing")]
    directory = build(tmp_path, values)
    assert [found["index"] for found in rows(directory, query="hé")[0]] == [0, 1]
    assert [found["index"] for found in rows(directory, query='"hé"\nnow')[0]] == [0]
    assert rows(directory, query="role") == ([], 0)
    page, total = rows(directory, offset=1, limit=1, query="hé")
    assert ([found["index"] for found in page], total) == ([1], 2)


def test_a_failing_token_count_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(GOOD)
    with pytest.raises(ZeroDivisionError):
        ingest(tmp_path / "upload", "a.jsonl", tmp_path / "set", count_tokens=lambda value: 1 // 0, name="set")
    assert not (tmp_path / "set").exists()


MEASURE = """
import sys
from pathlib import Path
from shared.datasets import ingest

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
card = ingest(Path(sys.argv[1]), sys.argv[1], Path(sys.argv[2]), count_tokens=None, name="big")
print(card.rows.accepted, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_large_file_needs_little_memory(tmp_path: Path, kind: str) -> None:
    path, count = tmp_path / f"big.{kind}", 30_000
    lines = (
        json.dumps(row(f"{n} " + "why is the sky blue " * 50, "it scatters the light " * 50)) for n in range(count)
    )
    first, between, last = ("[", ",", "]") if kind == "json" else ("", "\n", "\n")
    with path.open("w") as file:
        file.write(first + next(lines))
        file.writelines(between + line for line in lines)
        file.write(last)
    assert path.stat().st_size > 60_000_000
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, path, tmp_path / "set"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    accepted, kilobytes = map(int, run.stdout.split())
    assert accepted == count
    assert kilobytes < 60_000


def test_a_file_of_brackets_needs_little_memory(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"[" * 2_000_000)
    with pytest.raises(DatasetError, match="truncated"):
        ingest(tmp_path / "upload", "a.json", tmp_path / "set", count_tokens=None, name="set")
