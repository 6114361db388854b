"""Prometheus beside the stack: its rules pass their own tests while the image is built, and every service is scraped."""

from collections.abc import Iterator

import pytest

from tests.conftest import wait_for
from tests.stack.conftest import Stack

SCRAPED = ("dashboard", "trainer", "inference", "llama")


@pytest.fixture(scope="module")
def prometheus(stack: Stack) -> Iterator[Stack]:
    stack.compose("--profile", "monitoring", "build", "prometheus")
    stack.compose("--profile", "monitoring", "up", "--detach", "--wait", "--no-deps", "prometheus")
    yield stack
    stack.compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus")


def asked(stack: Stack, expression: str) -> str:
    return stack.compose(
        "--profile", "monitoring", "exec", "-T", "prometheus",
        "promtool", "query", "instant", "http://127.0.0.1:9090", expression,
    )  # fmt: skip


def test_every_service_is_scraped(prometheus: Stack, adapter: str) -> None:
    for job in SCRAPED:
        wait_for(lambda job=job: "=> 1 " in asked(prometheus, f'up{{job="{job}"}}'), 60, f"{job} is scraped")
    for expression in ('tandem_service_up{service="trainer"} == 1', "tandem_engine_ready == 1",
                       'tandem_runs_finished_total{kind="train", outcome="succeeded"}', "tandem_disk_free_bytes",
                       "tandem_queue_messages == 0", "tandem_training_loss"):  # fmt: skip
        wait_for(lambda expression=expression: "=>" in asked(prometheus, expression), 40, expression)


def test_an_answer_is_counted(prometheus: Stack, adapter: str) -> None:
    prometheus.answer(adapter)
    counted = 'tandem_requests_total{model="adapter", outcome="ok"} > 0'
    wait_for(lambda: "=>" in asked(prometheus, counted), 40, "the request is counted")
    wait_for(lambda: "=>" in asked(prometheus, "tandem_time_to_first_token_seconds_count > 0"), 40, "so is its speed")


def test_prometheus_is_reached_from_nowhere_else(prometheus: Stack) -> None:
    with prometheus.browser() as stranger:
        assert stranger.get("/metrics").status_code == 401
        assert stranger.get("/grafana/").status_code in (302, 401)
        assert stranger.get("/prometheus/").status_code == 401
