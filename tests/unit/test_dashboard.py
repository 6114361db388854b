"""Small parts of the dashboard: thinned curves, relative times, sizes, names made from file names."""

import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dashboard.filters import ago, size
from services.dashboard.health import folder_bytes
from services.dashboard.intake import name_from
from services.dashboard.views.run_view import _Thinned
from shared.store import check_name


@given(st.integers(0, 5000), st.integers(2, 200))
def test_a_thinned_list_is_short_even_and_has_both_ends(count: int, most: int) -> None:
    thinned = _Thinned(most)
    for n in range(count):
        thinned.add(b"%d" % n)
    kept = [int(text) for text in thinned.all()]
    assert len(kept) <= most
    assert kept == sorted(set(kept))
    assert len(kept) >= min(count, most // 2)
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
    gaps = {b - a for a, b in pairwise(kept[:-1])}
    assert len(gaps) <= 1


@given(st.text(max_size=300))
def test_a_name_from_any_file_name_can_be_used(filename: str) -> None:
    check_name(name_from(filename))


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("My Chats (2).jsonl", "my-chats-2"),
        ("a/b\\c.tar.gz", "c"),
        ("质量.jsonl", "conversations"),
        ("", "conversations"),
    ],
)
def test_a_name_is_made_of_what_a_file_is_called(filename: str, name: str) -> None:
    assert name_from(filename) == name


def test_times_are_relative() -> None:
    def since(**delta: float) -> str:
        return ago((datetime.now(UTC) - timedelta(**delta)).isoformat().replace("+00:00", "Z"))

    assert [since(seconds=1), since(seconds=40), since(minutes=3), since(hours=5), since(days=9)] == [
        "just now",
        "40 s ago",
        "3 min ago",
        "5 h ago",
        "9 d ago",
    ]
    assert ago(None) == "–"


def test_sizes_have_a_unit() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 << 20, 13_800_000_000, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "12.9 GiB",
        "5120.0 GiB",
    ]


def test_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    alone = folder_bytes(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert folder_bytes(tmp_path) == alone
    assert folder_bytes(tmp_path / "none") == 0
