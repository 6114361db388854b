"""How a sweep is brought on: one trial after another, whatever breaks off, hopeless ones given up, the best one kept."""

import itertools
import shutil

import pytest

from services.trainer import study, sweep
from shared import registry, runs, sweeps
from shared.runs import RunConflict
from shared.store import Store
from shared.sweep_schemas import Range, SweepSpec
from tests.unit.sweep_bench import Bench


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    return Bench(Store(tmp_path), monkeypatch)


def test_one_trial_after_another_is_queued_and_the_best_one_is_kept(bench: Bench) -> None:
    status = bench.to_its_end()
    assert status.state == "succeeded" and [trial.number for trial in status.trials] == [1, 2, 3]
    assert bench.sent == [trial.run for trial in status.trials]
    losses = {trial.number: trial.validation_loss for trial in status.trials}
    assert status.best == min(losses, key=losses.get)
    assert bench.adapters() == [status.trials[status.best - 1].result]
    assert [trial.result for trial in status.trials if trial.number != status.best] == [None, None]
    assert not list(bench.store.runs().glob("*/checkpoints/*")), "checkpoints of trials would fill the disk"


def test_a_trial_is_a_run_like_any_other_and_names_its_sweep(bench: Bench) -> None:
    bench.advance()
    [run] = bench.waiting()
    assert (run.kind, run.sweep, run.trial, run.job.name) == ("train", "sweep-1", 1, "best")
    assert run.recipe.learning_rate == run.job.overrides["learning_rate"]
    assert run.recipe.lora_rank == run.job.overrides["lora_rank"]


def test_the_first_trial_takes_the_recipes_own_values(bench: Bench) -> None:
    own = bench.spec.recipe
    assert bench.advance().trials[0].values == {"learning_rate": own.learning_rate, "lora_rank": own.lora_rank}


def test_there_is_never_a_second_trial_while_one_waits_or_runs(bench: Bench) -> None:
    bench.advance()
    [run] = bench.waiting()
    bench.advance()
    runs.update(bench.store, run.id, state="running")
    bench.advance()
    assert [waiting.id for waiting in bench.waiting()] == [run.id] and bench.sent == [run.id]


def test_the_same_sweep_draws_the_same_values_and_each_trial_others(tmp_path, monkeypatch) -> None:
    drawn = [
        [trial.values for trial in Bench(Store(tmp_path / name), monkeypatch, trials=8).to_its_end().trials]
        for name in ("a", "b")
    ]
    assert drawn[0] == drawn[1]
    assert len({str(values) for values in drawn[0]}) == 8


STEPS = (
    (study.Journal, "append_logs"),
    (sweep.runs, "create"),
    (sweep.queue, "send"),
    (sweep.sweeps, "write_status"),
    (sweep.registry, "remove_adapter"),
    (sweep.shutil, "rmtree"),
)


class Dies(BaseException):
    """The worker is killed: nothing catches that."""


def dies_at(bench: Bench, monkeypatch, crash: int, written: bool) -> None:
    """Have the worker die at the `crash`-th thing that it writes, from 0 on: before it is written, or after."""
    numbers = itertools.count()

    def dying(real):
        def write(*args, **more):
            if not bench.advancing or next(numbers) != crash:
                return real(*args, **more)
            if written:
                real(*args, **more)
            raise Dies

        return write

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))


@pytest.mark.parametrize("written", [True, False])
def test_a_crash_between_any_two_steps_neither_loses_nor_doubles_a_trial(tmp_path, written: bool) -> None:
    for crash in itertools.count():
        with pytest.MonkeyPatch.context() as monkeypatch:
            bench = Bench(Store(tmp_path / str(crash)), monkeypatch)
            dies_at(bench, monkeypatch, crash, written)
            try:
                bench.to_its_end()
                break  # it writes no more than that
            except Dies:
                assert len(bench.waiting()) <= 1
            status = sweeps.read_status(bench.store, "sweep-1")
            status = status if status.ended else bench.to_its_end()
            assert [trial.number for trial in status.trials] == [1, 2, 3]
            assert sorted(runs.ids(bench.store)) == [trial.run for trial in status.trials]
            assert {trial.state for trial in status.trials} == {"succeeded"}
            assert bench.adapters() == [status.trials[status.best - 1].result]
            assert not list(bench.store.runs().glob("*/checkpoints/*"))
    assert crash > 20


def test_a_torn_line_of_the_journal_is_cut_off(bench: Bench) -> None:
    bench.advance()
    journal = bench.store.sweep("sweep-1") / "journal.jsonl"
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert bench.to_its_end().state == "succeeded"


def test_a_hopeless_trial_is_cancelled_with_its_reason(bench: Bench) -> None:
    bench.spec = bench.spec.model_copy(update={"trials": 9})
    for loss in (1.0, 1.1, 1.2, 1.3):
        bench.advance()
        [run] = bench.waiting()
        bench.validated(run, loss + 1, loss)
        bench.succeed(run, loss)
    bench.advance()
    [run] = bench.waiting()
    bench.validated(run, 2.9)
    bench.advance()
    assert runs.cancel_reason(bench.store, run.id) == (
        "Pruned at step 10: its validation loss 2.900 is above the median 2.150 of the 4 finished trials there."
    )
    runs.finish(bench.store, run.id, "cancelled", runs.cancel_reason(bench.store, run.id))
    trial = bench.advance().trials[4]
    assert trial.pruned and trial.validation_loss == 2.9 and str(trial.reason).startswith("Pruned at step 10")


def test_a_trial_that_is_good_enough_is_left_alone(bench: Bench) -> None:
    bench.spec = bench.spec.model_copy(update={"trials": 9})
    for _ in range(4):
        bench.advance()
        [run] = bench.waiting()
        bench.validated(run, 2.0)
        bench.succeed(run, 1.0)
    bench.advance()
    [run] = bench.waiting()
    bench.validated(run, 1.9)
    bench.advance()
    assert not runs.cancel_requested(bench.store, run.id)


def test_trials_of_other_lengths_are_compared_at_the_same_share_of_their_steps(bench: Bench) -> None:
    bench.spec = bench.spec.model_copy(update={"trials": 9})
    for _ in range(4):
        bench.advance()
        [run] = bench.waiting()
        bench.validated(run, 2.0, 1.0, steps=100)
        bench.succeed(run, 1.0)
    bench.advance()
    [run] = bench.waiting()
    bench.validated(run, 1.9, steps=200)  # step 20, where those of 100 steps had 1.0
    bench.advance()
    assert not runs.cancel_requested(bench.store, run.id)


def test_a_trial_that_ends_before_it_can_be_stopped_counts_with_its_result(bench: Bench) -> None:
    bench.spec = bench.spec.model_copy(update={"trials": 9})
    for loss in (1.0, 1.0, 1.0, 1.0, 0.5):
        bench.advance()
        [run] = bench.waiting()
        bench.validated(run, 9.0 if loss == 0.5 else loss)
        bench.advance()
        bench.succeed(run, loss)
    status = bench.advance()
    assert status.best == 5 and not status.trials[4].pruned


def test_a_person_may_cancel_a_trial_and_the_sweep_goes_on(bench: Bench) -> None:
    bench.advance()
    [run] = bench.waiting()
    runs.request_cancel(bench.store, run.id)
    status = bench.to_its_end()
    assert [trial.state for trial in status.trials] == ["cancelled", "succeeded", "succeeded"]
    assert not status.trials[0].pruned


def test_three_failures_in_a_row_end_the_sweep_with_their_reason(bench: Bench) -> None:
    bench.spec = bench.spec.model_copy(update={"trials": 9})
    for _ in range(3):
        bench.advance()
        runs.finish(bench.store, bench.waiting()[0].id, "failed", "The GPU ran out of memory.")
    status = bench.advance()
    assert status.state == "failed" and len(status.trials) == 3
    assert status.reason == "3 trials in a row failed, the last because: The GPU ran out of memory."


def test_a_cancelled_sweep_cancels_its_trial_and_keeps_the_best_so_far(bench: Bench) -> None:
    bench.advance()
    kept = bench.succeed(bench.waiting()[0])
    bench.advance()
    [run] = bench.waiting()
    bench.validated(run)
    sweeps.request_cancel(bench.store, "sweep-1")
    assert bench.advance().state == "running"
    assert runs.cancel_reason(bench.store, run.id) == "Its sweep was cancelled."
    runs.finish(bench.store, run.id, "cancelled", "Its sweep was cancelled.")
    status = bench.advance()
    assert (status.state, status.best) == ("cancelled", 1) and bench.adapters() == [kept]
    assert len(bench.sent) == 2
    with pytest.raises(RunConflict, match="already been cancelled"):
        sweeps.request_cancel(bench.store, "sweep-1")


def test_an_adapter_that_an_alias_points_at_or_a_run_works_on_is_not_deleted(bench: Bench) -> None:
    bench.loss = lambda values: 3.0 - len(runs.ids(bench.store))  # each is better than the one before
    bench.advance()
    pointed = bench.succeed(bench.waiting()[0])
    registry.point_alias(bench.store, "production", pointed)
    bench.to_its_end()
    assert pointed in bench.adapters() and len(bench.adapters()) == 2


def test_a_run_that_was_deleted_stays_in_the_table(bench: Bench) -> None:
    bench.advance()
    [run] = bench.waiting()
    bench.succeed(run)
    bench.advance()
    shutil.rmtree(bench.store.run(run.id))
    status = bench.to_its_end()
    assert [trial.number for trial in status.trials] == [1, 2, 3] and status.trials[0].validation_loss is not None


def test_two_workers_do_not_bring_the_same_sweep_on_at_once(bench: Bench) -> None:
    with sweep._alone(bench.store.sweep("sweep-1")) as mine, sweep._alone(bench.store.sweep("sweep-1")) as other:
        assert mine and not other


def test_a_sweep_that_cannot_be_read_does_not_hold_up_the_others(bench: Bench) -> None:
    broken = bench.store.sweep("sweep-0")
    broken.mkdir()
    (broken / "spec.json").write_text("{}")
    sweep.tend(None, bench.store)
    assert len(bench.sent) == 1


def test_what_matters_is_told_once_there_are_trials_enough(tmp_path, monkeypatch) -> None:
    status = Bench(Store(tmp_path), monkeypatch, trials=12).to_its_end()
    assert sum(status.importances.values()) == pytest.approx(1)
    assert status.importances["learning_rate"] > status.importances["lora_rank"], "the loss is the learning rate"


def test_numbers_between_are_drawn_whole_where_they_must_be(tmp_path, monkeypatch) -> None:
    bench = Bench(Store(tmp_path), monkeypatch, trials=6, loss=lambda values: 1.0 / values["lora_rank"])
    search = {"lora_rank": Range(low=8, high=64), "rslora": [True, False]}
    bench.spec = SweepSpec.model_validate(bench.spec.model_dump() | {"search": search})
    drawn = [trial.values for trial in bench.to_its_end().trials]
    assert all(isinstance(values["lora_rank"], int) and isinstance(values["rslora"], bool) for values in drawn)
