"""Log lines: one JSON object each, the same keys from every service, and nothing of other people's chatter."""

import json
import logging
from collections.abc import Iterator

import pytest
from gunicorn.config import Config

from services.dashboard.log import Gunicorn
from services.trainer.log import about_run
from shared import logs, runs
from shared.schemas import Job
from shared.store import Store


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """Standard output; the logging of this process is afterwards as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield capsys
    root.handlers[:], root.level = before, level
    logging.captureWarnings(False)


def lines(output: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in output.readouterr().out.splitlines()]


def test_a_line_has_time_service_level_and_message_or_fields(output: pytest.CaptureFixture[str]) -> None:
    logs.to_stdout("llama")
    logging.getLogger("tandem.llama").warning("two\nlines of %s", "text")
    logging.getLogger("tandem.access").info("", extra={"fields": {"request_id": "a", "status": 200}})
    first, second = lines(output)
    assert first.pop("time").endswith("Z")
    assert first == {"service": "llama", "level": "warning", "message": "two\nlines of text"}
    assert list(second) == ["time", "service", "level", "request_id", "status"]


def test_an_error_is_one_line_with_its_traceback(output: pytest.CaptureFixture[str]) -> None:
    logs.to_stdout("dashboard")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("tandem.dashboard").exception("a request failed")
    (line,) = lines(output)
    assert line["message"] == "a request failed" and "KeyError: 'gone'" in line["error"]


def test_gunicorn_says_what_it_says_in_the_same_form(output: pytest.CaptureFixture[str]) -> None:
    Gunicorn(Config()).info("Listening at: %s", "http://127.0.0.1:8000")
    (line,) = lines(output)
    assert (line["service"], line["message"]) == ("dashboard", "Listening at: http://127.0.0.1:8000")


def test_addresses_that_libraries_log_are_left_out(output: pytest.CaptureFixture[str]) -> None:
    logs.to_stdout("dashboard")
    logging.getLogger("httpx").info("GET http://llama/health?token=secret")
    logging.getLogger("somebody.else").info("prompt: secret")
    assert output.readouterr().out == ""


@pytest.mark.parametrize("given", ["", None, "no good\t", "x" * 65, '"}'])
def test_an_id_that_nginx_did_not_give_is_replaced(given: str | None) -> None:
    assert logs.request_id("a.b-C_9") == "a.b-C_9"
    made = logs.request_id(given)
    assert made != given and logs.ID.fullmatch(made)


def test_what_the_worker_says_of_a_run_names_the_run_and_the_request_that_asked(store: Store) -> None:
    runs.create(store, "train-1", "train", Job(dataset="a@0"), request_id="asked-1")
    add = about_run(store)

    def fields(task_id: str) -> dict:
        record = logging.LogRecord("celery.app.trace", logging.INFO, "", 0, "succeeded", (), None)
        record.data = {"id": task_id, "kwargs": {"dataset": "a"}}
        assert add(record)
        return record.fields

    assert fields("train-1") == fields("train-1.2") == {"run": "train-1", "request_id": "asked-1"}
    assert fields("7c9e-of-another-client") == {"run": "7c9e-of-another-client", "request_id": None}
    other = logging.LogRecord("celery", logging.INFO, "", 0, "ready", (), None)
    assert add(other) and not hasattr(other, "fields")
