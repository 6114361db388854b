"""One child process: start it, watch it, ask it to stop, insist."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however that dies (man 2 prctl)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def supervise(
    command: list[str],
    log: Path,
    *,
    beat: Callable[[], None],
    beat_seconds: float,
    stop: Callable[[], bool],
    grace_seconds: float,
) -> int:
    """Run `command`, its output appended to `log`, and return its exit code (negative: the signal that ended it).

    `beat` is called every `beat_seconds` while it lives. Once `stop` is true it gets SIGTERM, and SIGKILL
    `grace_seconds` later."""
    with open(log, "ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        asked = last_beat = 0.0
        try:
            while child.poll() is None:
                moment = time.monotonic()
                if moment - last_beat >= beat_seconds:
                    beat()
                    last_beat = moment
                if not asked and stop():
                    child.terminate()
                    asked = moment
                if asked and moment - asked > grace_seconds:
                    child.kill()
                try:
                    child.wait(timeout=min(0.25, beat_seconds))
                except subprocess.TimeoutExpired:
                    continue
            return child.returncode
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
