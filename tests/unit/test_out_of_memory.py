"""A run for which memory ran out: how it is known, what it is told, and the smaller batch with which it goes on."""

import signal
from pathlib import Path

import pytest

from services.trainer import exits, tasks
from shared import recipes, runs
from shared.schemas import Job
from shared.store import Store

KILLED = -signal.SIGKILL


@pytest.fixture
def run_id(store: Store) -> str:
    """A run whose child got as far as its first micro batch."""
    recipe = recipes.resolve("tiny", {"batch_size": 4, "accumulation": 2})
    runs.create(store, "train-1", "train", Job(dataset="d@1", recipe="tiny", name="d"), recipe)
    runs.claim(store, "train-1", 1, "here")
    runs.append_event(store, "train-1", "status", state="running", attempt=1)
    return "train-1"


def begun(store: Store, run_id: str, batch: int, accumulation: int) -> None:
    runs.append_event(store, run_id, "micro_batch", batch_size=batch, accumulation=accumulation, gpus=1)


@pytest.mark.parametrize(("code", "starved"), [(exits.OUT_OF_MEMORY, False), (KILLED, True)])
def test_each_attempt_has_half_of_what_the_last_one_had_until_there_is_no_half(
    store: Store, run_id: str, code: int, starved: bool
) -> None:
    """`starved` is what the kernel counts: it killed for want of memory."""
    begun(store, run_id, 4, 2)
    assert "with 2 in a micro batch and 4 of them a step" in str(tasks.second_chance(store, run_id, code, starved))
    begun(store, run_id, 2, 4)
    assert "with 1 in a micro batch and 8 of them a step" in str(tasks.second_chance(store, run_id, code, starved))
    begun(store, run_id, 1, 8)
    assert tasks.second_chance(store, run_id, code, starved) is None
    told = [(event["batch_size"], event["accumulation"]) for event in runs.all_events(store, run_id, "halved")]
    assert told == [(2, 4), (1, 8)]


def test_a_kill_for_another_reason_goes_on_as_it_was_and_a_failure_ends_it(store: Store, run_id: str) -> None:
    begun(store, run_id, 4, 2)
    assert "was killed" in str(tasks.second_chance(store, run_id, KILLED, False))
    assert tasks.second_chance(store, run_id, exits.FAILED, False) is None
    assert not list(runs.all_events(store, run_id, "halved"))


def test_a_run_that_ran_out_before_its_first_batch_is_not_tried_again(store: Store, run_id: str) -> None:
    assert tasks.second_chance(store, run_id, KILLED, True) is None


def test_the_last_one_is_told_by_the_limit_that_it_met(
    store: Store, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(f"{1100 << 20}\n")
    monkeypatch.setattr(exits, "_LIMITS", (str(tmp_path / "memory.max"),))
    tasks.record(store, run_id, 1, KILLED, True)
    status = runs.read_status(store, run_id)
    assert status.state == "failed"
    assert "Out of memory: the run needed more than the 1.1 GiB" in str(status.reason)
    assert "TRAINER_MEMORY" in str(status.reason)


@pytest.mark.parametrize(
    "text",
    ["low 0\noom 3\noom_kill 2\noom_group_kill 0\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"],
    ids=["cgroup v2", "cgroup v1"],
)
def test_the_kernels_kills_are_counted(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    told.write_text(text)
    monkeypatch.setattr(exits, "_KILLS", (str(tmp_path / "none"), str(told)))
    assert exits.oom_kills() == 2
    told.unlink()
    assert exits.oom_kills() == 0
