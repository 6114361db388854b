"""Children that are started, watched and ended together."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from services.trainer.supervise import supervise
from tests.conftest import ROOT, wait_for


def run(tmp_path: Path, *scripts: str, stop: float = 60.0, grace: float = 60.0) -> tuple[int, float]:
    """The exit code of children that run a shell script each, asked to stop after `stop` seconds, and the time it took."""
    begun = time.monotonic()
    code = supervise(
        ["sh", "-c", 'eval "$SCRIPT"'],
        tmp_path / "log.txt",
        environments=[{"SCRIPT": script} for script in scripts],
        beat=lambda: None,
        beat_seconds=0.1,
        stop=lambda: time.monotonic() > begun + stop,
        grace_seconds=grace,
    )
    return code, time.monotonic() - begun


def test_the_first_ones_end_ends_all(tmp_path: Path) -> None:
    code, seconds = run(tmp_path, "exit 0", "exec sleep 60")
    assert code == 0 and seconds < 10


def test_one_that_is_done_is_waited_for_no_more(tmp_path: Path) -> None:
    assert run(tmp_path, "sleep 1; exit 0", "exit 0")[0] == 0


def test_any_ones_failure_ends_all_with_its_exit_code(tmp_path: Path) -> None:
    code, seconds = run(tmp_path, "exec sleep 60", "exit 13")
    assert code == 13 and seconds < 10


def test_a_killed_one_is_told_as_the_signal(tmp_path: Path) -> None:
    assert run(tmp_path, "exec sleep 60", "kill -9 $$")[0] == -signal.SIGKILL


def test_the_first_alone_is_asked_to_stop(tmp_path: Path) -> None:
    asked = "trap 'exit 10' TERM; while :; do sleep 0.1; done"
    assert run(tmp_path, asked, "trap 'exit 11' TERM; while :; do sleep 0.1; done", stop=1)[0] == 10


def test_what_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    assert run(tmp_path, deaf, deaf, stop=0.5, grace=0.5)[0] == -signal.SIGKILL


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$"])
def test_what_a_child_has_started_ends_with_it(tmp_path: Path, end: str) -> None:
    pid = tmp_path / "pid"
    run(tmp_path, f"sleep 60 & echo $! > {pid}; {end}")
    wait_for(lambda: not psutil.pid_exists(int(pid.read_text())), 5, "the grandchild's end")


def test_the_log_has_what_the_first_says_and_the_errors_of_all(tmp_path: Path) -> None:
    run(tmp_path, "echo one; sleep 1", "echo two; echo trouble >&2")
    assert sorted((tmp_path / "log.txt").read_text().split()) == ["one", "trouble"]


def test_a_child_dies_with_whoever_supervises_it_from_its_first_moment(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = (
        "from pathlib import Path; from services.trainer.supervise import supervise; "
        f"supervise(['sh', '-c', 'echo $$ > {pid}; exec sleep 60'], Path('{tmp_path}/log'), beat=lambda: None, "
        "beat_seconds=1, stop=lambda: False, grace_seconds=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_for(lambda: pid.exists() and pid.read_text().strip(), 20, "the child")
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(int(pid.read_text())), 5, "the child's end")
