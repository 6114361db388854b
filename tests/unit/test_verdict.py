"""What the page of a run says of its curve."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.dashboard.pages.new_run import BASIC, GROUPS
from services.dashboard.views import run_view
from services.dashboard.views.told import told
from services.dashboard.views.verdict import Verdict, seconds_left, troubles, verdict
from shared import runs
from shared.recipes import resolve
from shared.schemas import Job, Recipe
from shared.store import Store

RUN = "train-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    runs.create(store, RUN, "train", Job(dataset="chats@0", recipe="tiny", name="chats"), resolve("tiny"))
    runs.update(store, RUN, state="running", attempt=1, steps=100)
    return store


def write(store: Store, events: list[dict[str, Any]]) -> None:
    """Append events, a second apart."""
    with open(store.run(RUN) / "events.jsonl", "a") as file:
        for second, event in enumerate(events):
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
            file.write(json.dumps({"time": moment.isoformat(), **event}) + "\n")


def curve(losses: list[float], **rest: float) -> list[dict[str, Any]]:
    return [{"type": "metric", "step": n, "loss": loss, **rest} for n, loss in enumerate(losses, 1)]


def stands(store: Store) -> Verdict:
    return verdict(run_view.detail(store, RUN), told(store, RUN))


def said(store: Store) -> tuple[str, list[str]]:
    """(how the run stands, the kinds of its troubles)."""
    view, story = run_view.detail(store, RUN), told(store, RUN)
    return verdict(view, story).what, [trouble["kind"] for trouble in troubles(view, story)]


@pytest.mark.parametrize(
    ("losses", "what", "kinds"),
    [
        ([2 - n / 40 for n in range(60)], "Going well", []),
        ([2.0 + n % 2 / 50 for n in range(60)], "The loss is not falling", ["flat"]),
        ([2 - n / 20 for n in range(30)] + [3.0] * 20, "The loss has jumped up", ["jump"]),
        ([2.0] * 8, "Just started", []),
        ([], "Getting ready", []),
    ],
)
def test_the_curve_is_judged_by_its_rules(store: Store, losses: list[float], what: str, kinds: list[str]) -> None:
    write(store, curve(losses))
    assert said(store) == (what, kinds)


def test_a_validation_loss_that_rises_is_told_unless_the_trainer_tells_it(store: Store) -> None:
    write(store, curve([2 - n / 40 for n in range(60)]))
    write(store, [{"type": "metric", "step": n, "validation_loss": v} for n, v in ((20, 1.0), (40, 1.3))])
    assert said(store)[1] == ["overfitting"]
    write(store, [{"type": "warning", "kind": "validation", "text": "It has not fallen."}])
    assert said(store)[1] == ["validation"]


def test_a_run_that_ran_out_of_memory_says_with_what_it_goes_on(store: Store) -> None:
    why = "Out of memory: the run goes on from its last checkpoint with 2 in a micro batch."
    write(store, [{"type": "halved", "batch_size": 2, "accumulation": 4}])
    write(store, [{"type": "status", "state": "queued", "reason": why}])
    runs.update(store, RUN, state="queued")
    assert stands(store).text == why
    write(
        store,
        [{"type": "status", "state": "running", "step": 0, "steps": 100}, *curve([2 - n / 40 for n in range(60)])],
    )
    runs.update(store, RUN, state="running")
    assert (
        "ran out of memory and went on from its last checkpoint with batch_size 2 and accumulation 4"
        in stands(store).so
    )
    write(store, [{"type": "halved", "batch_size": 1, "accumulation": 8}])
    runs.update(store, RUN, state="succeeded")
    assert (stands(store).what, stands(store).tone) == ("Done", "good")
    assert "ran out of memory 2 times and went on from its last checkpoint with batch_size 1" in stands(store).so
    assert "begins with these values, and with fill_memory off" in stands(store).so


@pytest.mark.parametrize(
    ("reason", "batch", "so"),
    [
        ("This needs about 20.0 GiB. The nearest that fits: batch_size 1.", 2, "Choose Change and run again"),
        ("This needs about 20.0 GiB of memory. Nothing smaller fits: the base takes 13.0 GiB.", 1, "more memory"),
        ("The run ran out of memory.", 2, "Train again with a smaller batch_size or max_length"),
        ("The run ran out of memory.", 1, "Train again with a smaller max_length"),
    ],
)
def test_a_run_without_enough_memory_says_the_way_out(store: Store, reason: str, batch: int, so: str) -> None:
    write(store, [{"type": "micro_batch", "batch_size": batch, "accumulation": 8, "gpus": 1}])
    runs.finish(store, RUN, "failed", reason)
    assert so in stands(store).so


def test_a_run_that_waits_to_be_resumed_does_not_say_that_it_never_began(store: Store) -> None:
    runs.finish(store, RUN, "cancelled")
    runs.resume(store, RUN)
    assert stands(store).text == "It waits to be resumed."


def test_a_run_that_became_slow_is_told(store: Store) -> None:
    falling = curve([2 - n / 40 for n in range(60)])
    write(store, [{**e, "tokens_per_second": 1000.0 if e["step"] < 30 else 300.0} for e in falling])
    assert said(store)[1] == ["slow"]


def test_the_story_is_read_on_and_a_line_that_is_being_written_comes_later(store: Store) -> None:
    write(store, curve([2.0, 1.0]))
    assert told(store, RUN).points == 2
    path = store.run(RUN) / "events.jsonl"
    line = json.dumps({"time": "2026-01-01T00:00:02.000Z", "type": "metric", "step": 3, "loss": 0.5})
    with path.open("a") as file:
        file.write(line[:40])
    assert told(store, RUN).points == 2
    with path.open("a") as file:
        file.write(line[40:] + "\n")
    assert told(store, RUN).points == 3 and told(store, RUN).offset == path.stat().st_size


def test_what_is_left_follows_the_pace_and_begins_anew_with_an_attempt(store: Store) -> None:
    write(store, curve([1.0] * 60))
    view = {**run_view.detail(store, RUN), "steps": 100}
    assert seconds_left(view, told(store, RUN)) == pytest.approx(40)
    write(store, [{"type": "status", "state": "running", "step": 60, "steps": 100}])
    assert seconds_left(view, told(store, RUN)) is None
    assert told(store, RUN).resumed == [60]


def test_a_hundred_thousand_points_come_to_the_same_as_a_few(store: Store) -> None:
    write(store, curve([2 - n / 60_000 for n in range(100_000)], tokens_per_second=5.0))
    story = told(store, RUN)
    assert story.points == 100_000 and story.paces[-1][1] == 100_000
    assert story.start == pytest.approx(2, abs=0.01) and story.now == pytest.approx(1 / 3, abs=0.01)


def test_every_value_of_a_recipe_stands_once_in_the_form() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(set(Recipe.model_fields) - {"about"})
    assert set(named) >= BASIC
