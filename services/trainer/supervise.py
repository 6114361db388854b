"""A run's child process, or its several: start, watch, ask to stop, insist."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing may be


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however that dies (man 2 prctl)."""
    parent = os.getppid()
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def supervise(
    command: list[str],
    log: Path,
    *,
    environments: Sequence[dict[str, str]] = ({},),
    beat: Callable[[], None],
    beat_seconds: float,
    stop: Callable[[], bool],
    grace_seconds: float,
) -> int:
    """Run `command`, its output appended to `log`, and return its exit code (negative: the signal that ended it).

    It is run once for each of `environments`, which are added to this process's own. The first of these children is the
    one that speaks and is asked to stop; of the others the log has errors alone. When it ends, or any of them fails,
    all end, with whatever they have started themselves, and that one's exit code is returned.

    `beat` is called every `beat_seconds` while they live. Once `stop` is true the first gets SIGTERM, and all get SIGKILL
    `grace_seconds` later."""
    with open(log, "ab") as output, contextlib.ExitStack() as ending:
        children = []
        for more in environments:
            children.append(_begin(command, output if not children else subprocess.DEVNULL, output, more))
            ending.callback(_end, children[-1])
        asked = last_beat = 0.0
        while (code := _outcome(children)) is None:
            moment = time.monotonic()
            if moment - last_beat >= beat_seconds:
                beat()
                last_beat = moment
            if not asked and stop():
                children[0].terminate()
                asked = moment
            if asked and moment - asked > grace_seconds:
                children[0].kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                children[0].wait(timeout=min(0.25, beat_seconds))
        return code


def _begin(command: list[str], output: Any, errors: Any, more: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **more}
    # die_with_parent before the child imports anything: until it has, a killed worker would leave it training unwatched
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=errors,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # a group of its own, by which its own children are found
        preexec_fn=die_with_parent,
    )


def _outcome(children: list[subprocess.Popen[bytes]]) -> int | None:
    """The exit code of the first child that failed, or else of the first of all; None while they work."""
    codes = [child.poll() for child in children]
    return next((code for code in codes if code), codes[0])


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it and its children, such as PyTorch's compilers: one that is left would hold memory and locks of its caches."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
