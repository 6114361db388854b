"""The serving benchmark's own arithmetic: rates, ratios, llama.cpp's table, and a child that is watched."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving import likeness, llama, report
from benchmarks.serving.child import Child
from benchmarks.serving.speed import MOST_WARM, ROUNDS, TOKENS, decode, prompts
from tests.conftest import wait_for

TABLE = """
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|   128 |    128 |    1 |    256 |    0.020 |  6400.00 |    0.413 |   309.93 |    0.433 |   591.22 |
|   128 |    128 |   32 |   8192 |    0.317 | 12921.14 |    2.574 |  1591.30 |    2.891 |  2833.62 |
llama_perf_context_print: load time = 1 | 2 | 3
"""


def measured(**values: float) -> report.Measured:
    return {name: {"value": value, "device": "H200", "date": "2026-11-21"} for name, value in values.items()}


def child(tmp_path: Path, code: str) -> Child:
    return Child("it", [sys.executable, "-u", "-c", code], tmp_path / "it.log", os.environ, tmp_path)


class Rounds:
    """What answers of one token and of all take, round after round: the pairs that are given, and the last of them on and on."""

    def __init__(self, *pairs: tuple[float, float]) -> None:
        self.pairs, self.asked = pairs, 0

    def __call__(self, tokens: int) -> float:
        pair = self.pairs[min(self.asked // 2, len(self.pairs) - 1)]
        self.asked += 1
        return pair[tokens == TOKENS]


def test_the_rate_is_of_the_tokens_after_the_first_and_begins_when_rounds_are_alike() -> None:
    rounds = Rounds((9.0, 99.0), (1.0, 3.0), (5.0, 3.0), (1.0, 8.0), (1.0, 3.0), (1.1, 3.1), (1.0, 3.0))
    assert decode(rounds, streams=4) == (TOKENS - 1) * 4 / 2.0  # the median round took two seconds longer
    assert rounds.asked == 2 * (6 + ROUNDS), "two alike were waited for"


def test_a_compiler_in_the_midst_of_a_few_rounds_does_not_change_the_rate() -> None:
    alike = [(1.0, 3.0)] * 2
    assert decode(Rounds(*alike, (9.0, 3.0), (1.0, 9.0), (1.0, 3.0)), streams=4) == (TOKENS - 1) * 4 / 2.0


def test_rounds_that_are_never_alike_are_measured_after_a_while() -> None:
    rounds = Rounds(*[(2.0 ** (n % 3), 16.0) for n in range(100)])
    decode(rounds, streams=1)
    assert rounds.asked == 2 * (MOST_WARM + ROUNDS)


def test_prompts_are_new_each_time_but_for_those_of_the_proof() -> None:
    assert prompts(2, 5) != prompts(2, 5)
    assert prompts(2, 5, seed=0) == prompts(2, 5, seed=0)
    assert [len(prompt) for prompt in prompts(3, 7)] == [7, 7, 7]


def test_llama_cpp_s_table_is_read_by_streams_and_nothing_else_is() -> None:
    assert list(llama.rows(TABLE.splitlines())) == [(1, 309.93), (32, 1591.3)]


def test_without_llama_cpp_the_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="--llama FOLDER"):
        llama.command(tmp_path, tmp_path / "base.gguf")


def test_a_row_stands_when_both_of_its_sides_have_been_measured() -> None:
    rows = {row["name"]: row for row in report.found(measured(ours_32=4800.0, bare_32=5000.0, ours_8=9.0, bare_1=1.0))}
    assert list(rows) == ["streams_32"]
    assert (rows["streams_32"]["ours"], rows["streams_32"]["baseline"], rows["streams_32"]["ratio"]) == (
        4800,
        5000,
        0.96,
    )


def test_what_is_asked_for_stands_in_for_a_baseline_and_the_bases_likeness_is_told() -> None:
    cosines = {"adapter_cosine": 0.996, "adapter_without_cosine": 0.61, "adapter_attention_cosine": 0.9}
    rows = {row["name"]: row for row in report.found(measured(ours_start_s=60.0, base_cosine=0.997, **cosines))}
    assert (rows["start_s"]["baseline"], rows["start_s"]["ratio"]) == (75, 0.8)
    assert "the two bases: 0.9970" in rows["adapter_cosine"]["method"]
    assert rows["experts_cosine"]["baseline"] == 0.9


def test_later_rows_take_the_place_of_earlier_ones_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "JSON", tmp_path / "serving.json")
    report.write(measured(ours_start_s=60.0, ours_health_ms=4.0))
    report.write(measured(ours_start_s=30.0))
    kept = {row["name"]: row["ours"] for row in json.loads((tmp_path / "serving.json").read_text())}
    assert kept == {"start_s": 30.0, "health_ms": 4.0}
    assert "| `start_s` | 30.0 | 75.0 | 0.400 | s |" in (tmp_path / "serving.md").read_text()


def test_a_child_s_lines_come_whole_and_its_failure_shows_its_last_words(tmp_path: Path) -> None:
    with child(
        tmp_path, "import time; print('on', end='', flush=True); time.sleep(0.5); print('e'); print('two')"
    ) as good:
        assert list(good.lines()) == ["one", "two"]
    with (
        child(tmp_path, "raise SystemExit('out of memory')") as bad,
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        list(bad.lines())


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    with child(tmp_path, code) as parent:
        (pid,) = parent.lines()
        words = Path(f"/proc/{pid}/cmdline")  # empty once it has ended
        assert words.read_bytes()
    wait_for(lambda: not words.exists() or not words.read_bytes(), 5, "it has ended")


class Letters:
    """An encoder of three tokens."""

    def token_bytes(self, token: int) -> bytes:
        return "abc"[token].encode()


def test_what_all_tokens_share_says_nothing_of_likeness() -> None:
    logits = np.array([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]])
    assert likeness.cosine(logits, logits - 12.0) == pytest.approx(1.0)
    assert likeness.cosine(logits, -logits) == pytest.approx(-1.0)


def test_distance_is_of_the_tokens_that_were_told_by_their_text() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25]]))
    told = [{"a": float(np.log(0.5)) + 0.2, "c": float(np.log(0.25)) - 0.4}]
    assert likeness.distance(told, logits, Letters()) == pytest.approx(0.3)
