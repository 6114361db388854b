"""What containers suffer: each is killed without a word, and nothing is lost, done twice or told twice."""

import threading
from collections.abc import Iterator

import pytest

from services.cli.client import Client, Failure
from shared import registry, runs
from tests.conftest import wait_for
from tests.stack.conftest import STEPS, Stack

WHOLE = list(range(1, STEPS + 1))


def finished_once(stack: Stack, run_id: str) -> None:
    """Succeeded, each step told once, one adapter published."""
    status = stack.ended(run_id)
    assert status.state == "succeeded", status
    assert stack.metrics(run_id) == WHOLE
    assert stack.outcomes(run_id) == ["succeeded"]
    assert [card.run for card in registry.adapters(stack.store)].count(run_id) == 1


@pytest.mark.parametrize("victim", ["celery", "services.trainer.train"])
def test_a_killed_worker_or_child_goes_on_from_the_last_checkpoint(stack: Stack, dataset: str, victim: str) -> None:
    run_id = stack.train(dataset, "killed")
    stack.at_step(run_id, 6)
    stack.kill("trainer", victim)
    finished_once(stack, run_id)
    assert runs.attempts(stack.store, run_id) == 2


def test_a_flushed_and_killed_redis_loses_and_repeats_no_job(stack: Stack, dataset: str) -> None:
    running = stack.train(dataset, "flushed")
    waiting = [stack.train(dataset, f"waiting-{number}", steps=2, evaluate_every=2) for number in range(3)]
    stack.at_step(running, 3)
    stack.compose("exec", "-T", "redis", "redis-cli", "flushall")
    stack.kill("redis", "redis-server")
    finished_once(stack, running)
    for run_id in waiting:
        assert stack.ended(run_id).state == "succeeded"
        assert stack.metrics(run_id) == [1, 2]
        assert runs.attempts(stack.store, run_id) == 1
    assert runs.attempts(stack.store, running) == 1


def test_five_streams_have_every_event_once_though_the_dashboard_was_killed(stack: Stack, dataset: str) -> None:
    run_id = stack.train(dataset, "watched")
    seen: list[list[dict]] = [[] for _ in range(5)]
    lost: list[str] = []

    def watch(events: list[dict]) -> None:
        for event in Client(stack.url, key=stack.key).events(run_id, lost=lost.append):
            events.append(event)

    threads = [threading.Thread(target=watch, args=(events,), daemon=True) for events in seen]
    for thread in threads:
        thread.start()
    stack.at_step(run_id, 4)
    wait_for(lambda: all(seen), 30, "every stream has begun")
    stack.kill("dashboard", "gunicorn", first=False)
    finished_once(stack, run_id)
    for thread in threads:
        thread.join(60)
    assert len(lost) >= 5
    written = list(runs.all_events(stack.store, run_id))
    assert all(events == written for events in seen)


def test_an_answer_that_is_cut_off_says_so_and_the_next_one_comes(stack: Stack, adapter: str) -> None:
    before = stack.answer(adapter)
    body = {"model": adapter, "messages": [{"role": "user", "content": "Tell me all."}]}
    # so hot that it rambles on: a greedy answer may end before the server does
    chunks: Iterator[dict] = stack.client.chat(body | {"max_tokens": 2000, "temperature": 2.0, "seed": 3})
    assert [next(chunks) for _ in range(3)]
    stack.kill("inference", "services.inference")
    with pytest.raises(Failure, match="broke"):
        list(chunks)
    with pytest.raises(Failure, match=r"not up|silent|starting|loaded") as refused:
        stack.client.call("POST", "/chat/completions", prefix="/v1", json=body)
    assert refused.value.status == 503
    assert stack.answer(adapter) == before


def test_a_run_goes_on_after_the_stack_was_taken_down_and_started_again(stack: Stack, dataset: str) -> None:
    run_id = stack.train(dataset, "interrupted")
    stack.at_step(run_id, 5)
    stack.compose("down")
    assert stack.status(run_id).state == "queued"
    step = stack.status(run_id).step
    stack.up()
    finished_once(stack, run_id)
    assert runs.attempts(stack.store, run_id) == 2
    begun = [e["step"] for e in runs.all_events(stack.store, run_id, "status") if "step" in e]
    assert begun == [0, step], "the second attempt began where the first one was stopped"
