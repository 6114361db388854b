"""How long an answer of vLLM's is left to gather tokens before it is read again."""

import pytest

from services.inference.vllm.engine import READS, pause


def test_many_are_read_less_often_so_that_one_thread_is_enough() -> None:
    assert pause(1, 1, 500) == pytest.approx(1 / READS)
    assert pause(128, 5, 500) == pytest.approx(128 / READS)


def test_the_last_tokens_are_read_when_they_have_come() -> None:
    """Five came in a pause: two more come in two fifths of one."""
    assert pause(100, 5, 2) == pytest.approx(100 / READS * 2 / 5)
    assert pause(100, 5, 0) == 0
    assert pause(100, 0, 3) == pytest.approx(100 / READS), "a read that brought none says nothing of the pace"
