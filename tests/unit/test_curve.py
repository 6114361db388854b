"""What a run makes of its curve: early stops, warnings, checkpoints that are whole."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from services.trainer.child import Context, Refused
from services.trainer.curve import Curve, last_whole_checkpoint, seal
from shared import recipes, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store


def curve(tmp_path: Path, **values: object) -> Curve:
    store = Store(tmp_path)
    recipe = recipes.resolve("tiny", values)
    spec = runs.create(store, "train-1", "train", Job(dataset="a@b"), recipe)
    settings = Settings(data=tmp_path, hf_home=tmp_path, redis_url="redis://x")
    return Curve(Context(settings, store, spec, 1), recipe, 50, 2000)


def log(watch: Curve, losses: list[float]) -> TrainerControl:
    control = TrainerControl()
    for step, loss in enumerate(losses, 1):
        watch.on_log(None, SimpleNamespace(global_step=step, max_steps=100), control, {"loss": loss})
    return control


def told(watch: Curve, *types: str) -> list[dict]:
    return list(runs.all_events(watch.context.store, "train-1", *types))


def test_the_target_loss_stops_the_run_once_it_is_held(tmp_path: Path) -> None:
    watch = curve(tmp_path, target_loss=0.5)
    assert not log(watch, [0.9, 0.1, 0.9, 0.9, 0.9]).should_training_stop
    assert log(watch, [0.4] * 10).should_training_stop
    assert "target" in str(watch.stopped_because)


def test_a_loss_that_is_not_a_number_ends_the_run_with_advice(tmp_path: Path) -> None:
    watch = curve(tmp_path)
    with pytest.raises(Refused, match="Lower learning_rate"):
        log(watch, [1.0, float("nan")])
    assert [(event["kind"], event["step"]) for event in told(watch, "warning")] == [("not_finite", 2)]


def test_overfitting_is_warned_of_once(tmp_path: Path) -> None:
    watch = curve(tmp_path, overfit_below=0.2)
    log(watch, [0.1] * 30)
    assert [event["kind"] for event in told(watch, "warning")] == ["overfitting"]


def test_patience_counts_validations_without_progress(tmp_path: Path) -> None:
    watch = curve(tmp_path, patience=2, evaluate_every=4, save_every=4)
    control = TrainerControl()
    for step, loss in enumerate([1.0, 0.8, 0.9, 0.85]):
        watch.on_evaluate(None, SimpleNamespace(global_step=step), control, {"eval_loss": loss})
        assert control.should_training_stop is (step == 3)


def test_a_cancelled_run_saves_at_the_end_of_its_step(tmp_path: Path) -> None:
    watch, control = curve(tmp_path), TrainerControl()
    watch.on_step_end(None, SimpleNamespace(global_step=1), control)
    assert not control.should_training_stop
    watch.context.stopping = True
    watch.on_step_end(None, SimpleNamespace(global_step=2), control)
    assert control.should_training_stop and control.should_save


def test_a_step_that_is_done_again_is_told_once(tmp_path: Path) -> None:
    watch = curve(tmp_path)
    log(watch, [1.0, 0.9, 0.8])
    again = Curve(watch.context, watch.recipe, 50, 2000)
    log(again, [1.0, 0.9, 0.8, 0.7])
    assert [event["step"] for event in told(watch, "metric")] == [1, 2, 3, 4]


def test_a_resumed_run_goes_on_knowing_what_came_before_its_checkpoint(tmp_path: Path) -> None:
    watch, control = curve(tmp_path, log_every=2, evaluate_every=1, patience=2), TrainerControl()
    history = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 2, "eval_loss": 0.9},
        {"step": 3, "loss": 0.3},
    ]
    history.append({"step": 3, "eval_loss": 0.95})
    watch.on_train_begin(None, SimpleNamespace(global_step=3, max_steps=9, log_history=history), control)
    assert (watch.best, watch.worse, watch.validated_at) == (0.9, 1, 3)
    watch.on_log(None, SimpleNamespace(global_step=4, max_steps=9), control, {"loss": 0.1})
    assert [(event["step"], event["loss"]) for event in told(watch, "metric")] == [(4, pytest.approx(0.2))]
    watch.on_evaluate(None, SimpleNamespace(global_step=4), control, {"eval_loss": 0.92})
    assert control.should_training_stop


@pytest.mark.parametrize("harm", ["truncate", "remove", "unseal", "garbage"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path: Path, harm: str) -> None:
    for step in (10, 9, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model").write_bytes(b"x" * 100)
        seal(folder)
    newest = tmp_path / "checkpoint-100"
    assert last_whole_checkpoint(tmp_path) == newest
    match harm:
        case "truncate":
            (newest / "model").write_bytes(b"x" * 50)
        case "remove":
            (newest / "model").unlink()
        case "unseal":
            (newest / "whole.json").unlink()
        case "garbage":
            (newest / "whole.json").write_text("{")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
