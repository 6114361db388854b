"""A run's directory: made whole, claimed once, told in lines, ended once."""

import json
import multiprocessing
import os

import pytest

from shared import runs
from shared.schemas import Job
from shared.store import BadName, NotFound, Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def run_id(store: Store) -> str:
    return runs.create(store, "train-1", "train", Job(dataset="a@b")).id


def _claim(root, barrier, won) -> None:
    barrier.wait()
    if runs.claim(Store(root), "train-1", 1, str(os.getpid())):
        won.put(os.getpid())


def test_eight_claimants_one_winner(store: Store, run_id: str) -> None:
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(8), context.Queue()
    claimants = [context.Process(target=_claim, args=(store.root, barrier, won)) for _ in range(8)]
    for claimant in claimants:
        claimant.start()
    for claimant in claimants:
        claimant.join(20)
    assert len([won.get(timeout=2) for _ in range(won.qsize())]) == 1
    assert runs.attempts(store, run_id) == 1


def test_only_the_next_attempt_of_a_queued_run_can_be_claimed(store: Store, run_id: str) -> None:
    assert not runs.claim(store, run_id, 2, "w")
    assert runs.claim(store, run_id, 1, "w")
    runs.update(store, run_id, state="running")
    assert not runs.claim(store, run_id, 2, "w")
    assert runs.requeue(store, run_id) == 2
    assert runs.claim(store, run_id, 2, "w")


def test_an_attempt_that_was_not_begun_is_given_back_with_the_room_it_kept(store: Store, run_id: str) -> None:
    assert runs.claim(store, run_id, 1, "w")
    assert (store.run(run_id) / "reserve").stat().st_size == runs.RESERVE
    runs.unclaim(store, run_id, 1)
    assert not (store.run(run_id) / "reserve").exists()
    assert runs.claim(store, run_id, 1, "w")
    runs.finish(store, run_id, "failed", "why")
    assert not (store.run(run_id) / "reserve").exists()


def test_creating_a_run_again_keeps_the_first(store: Store, run_id: str) -> None:
    again = runs.create(store, run_id, "export", Job(adapter="x@v1"))
    assert again.kind == "train"
    assert not list(store.runs().glob(".staging*"))


def test_a_torn_last_line_is_never_read_and_never_glued_to_the_next(store: Store, run_id: str) -> None:
    runs.append_event(store, run_id, "log", text="one")
    path = store.run(run_id) / "events.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"type": "log", "te')
    found, offset = runs.read_events(store, run_id)
    assert [event["text"] for _, event in found] == ["one"]
    runs.append_event(store, run_id, "log", text="two")
    found, end = runs.read_events(store, run_id, offset)
    assert [event["text"] for _, event in found] == ["two"] and end == path.stat().st_size


def test_every_offset_resumes_exactly(store: Store, run_id: str) -> None:
    for number in range(50):
        runs.append_event(store, run_id, "log", text=f"é{number}")
    everything, _ = runs.read_events(store, run_id)
    for index, (offset, _) in enumerate(everything):
        rest, _ = runs.read_events(store, run_id, offset)
        assert [e["text"] for _, e in rest] == [f"é{n}" for n in range(index + 1, 50)]
    with pytest.raises(ValueError, match="not the start of an event"):
        runs.read_events(store, run_id, 5)
    with pytest.raises(ValueError, match="not the start"):
        runs.read_events(store, run_id, 10**9)


def test_small_pages_add_up_to_the_whole(store: Store, run_id: str) -> None:
    for number in range(40):
        runs.append_event(store, run_id, "log", text="x" * number)
    seen, offset = [], 0
    while True:
        page, offset = runs.read_events(store, run_id, offset, limit_bytes=30)
        if not page:
            break
        seen += [len(event["text"]) for _, event in page]
    assert seen == list(range(40))


def test_cancelling_a_queued_run_shows_at_once(store: Store, run_id: str) -> None:
    runs.request_cancel(store, run_id)
    assert runs.read_status(store, run_id).state == "cancelled"
    with pytest.raises(runs.RunConflict, match="already been cancelled"):
        runs.request_cancel(store, run_id)
    assert runs.resume(store, run_id) == 1
    assert runs.read_status(store, run_id).state == "queued"


def test_only_an_unfinished_end_can_be_resumed(store: Store, run_id: str) -> None:
    with pytest.raises(runs.RunConflict, match="queued"):
        runs.resume(store, run_id)
    runs.finish(store, run_id, "succeeded", result="a@v1")
    with pytest.raises(runs.RunConflict, match="succeeded"):
        runs.resume(store, run_id)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", ".hidden", "x" * 65, "a..b", "-a", "a\n", "é"])
def test_a_name_that_is_a_path_is_refused(store: Store, name: str) -> None:
    with pytest.raises(BadName):
        store.run(name)


def test_an_unknown_run_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="nope"):
        runs.read_status(store, "nope")


def test_the_files_are_json_for_a_person(store: Store, run_id: str) -> None:
    assert json.loads((store.run(run_id) / "spec.json").read_text())["job"]["dataset"] == "a@b"
    assert (store.run(run_id) / "status.json").read_text().count("\n") > 2
