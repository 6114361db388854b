"""What every run's child process shares: its context, how it is asked to stop, and how an error becomes an exit code."""

import contextlib
import errno
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.trainer import exits, ranks
from shared import runs
from shared import settings as environment
from shared.schemas import RunSpec
from shared.settings import Settings
from shared.store import BadName, NotFound, Store
from shared.weights import WrongForm

# A rank that fails may only echo that another one did, or that all do. It waits before it tells why: by then it has been
# ended if another had died, and rank 0 speaks before those that would say the same.
CULPRIT_SECONDS = 1.0
SAME_SECONDS = 2.0


class Stopped(Exception):
    """The run was asked to stop, and has kept what it had."""


class Refused(RuntimeError):
    """The run cannot go on, or its result failed its proof; the message is the reason a person reads."""


@dataclass
class Context:
    """One attempt of one run, as its child process sees it. Where there are several, rank 0 alone tells of it."""

    settings: Settings
    store: Store
    spec: RunSpec
    attempt: int
    stopping: bool = field(default=False)
    rank: int = 0
    ranks: int = 1

    @property
    def folder(self) -> Path:
        return self.store.run(self.spec.id)

    def event(self, type_: str, **fields: Any) -> None:
        if not self.rank:
            runs.append_event(self.store, self.spec.id, type_, **fields)

    def log(self, text: str) -> None:
        """A line for the person who watches: in the events and in log.txt."""
        print(text, flush=True)
        self.event("log", text=text)

    def progress(self, step: int, steps: int | None = None, loss: float | None = None) -> None:
        if not self.rank:
            runs.update(self.store, self.spec.id, step=step, steps=steps, loss=loss)

    def check(self) -> None:
        """Raises Stopped if the run was asked to stop."""
        if self.stopping:
            raise Stopped


def main(work: Callable[[Context], None]) -> None:
    """`python -m services.trainer.<kind> <run id>`: run `work` and exit with the code that says how it went."""
    settings = environment.load()
    store = Store(settings.data)
    if len(sys.argv) != 2 or not runs.exists(store, sys.argv[1]):
        raise SystemExit(f"usage: python -m {work.__module__} RUN_ID (a folder of {store.runs()})")
    spec = runs.read_spec(store, sys.argv[1])
    rank, count = ranks.mine()
    context = Context(settings, store, spec, runs.attempts(store, spec.id), rank=rank, ranks=count)
    signal.signal(signal.SIGTERM, lambda *_: setattr(context, "stopping", True))
    signal.signal(signal.SIGINT, lambda *_: setattr(context, "stopping", True))
    faulthandler.register(signal.SIGUSR1)  # "where does it hang?": kill -USR1 has it say so in log.txt
    code = _outcome(work, context)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        if not context.rank and (code == exits.OK or context.ranks == 1):
            sys.exit(code)
    # log.txt could not be written: Python's own way out would try again, fail, and exit with another code. Or there are
    # other ranks: on the long way out they would notice that this one is missing, and fail with a code of their own.
    os._exit(code)


def _outcome(work: Callable[[Context], None], context: Context) -> int:
    try:
        work(context)
    except Stopped:
        return exits.STOPPED
    except Exception as error:  # noqa: BLE001  # the edge of the process: every error becomes an exit code and a reason
        with contextlib.suppress(OSError):  # log.txt is on the disk that may be full
            traceback.print_exc()
        reason, code = _explain(error)
        if context.ranks > 1:
            time.sleep(CULPRIT_SECONDS + (SAME_SECONDS if context.rank else 0))
        try:
            runs.append_event(context.store, context.spec.id, "error", reason=reason)
        except OSError:
            return code if code != exits.FAILED else exits.DISK_FULL
        return code
    return exits.OK


def _explain(error: Exception) -> tuple[str, int]:
    """The reason that a person reads, and the exit code."""
    if isinstance(error, (Refused, NotFound, BadName, WrongForm)):
        return str(error), exits.FAILED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return exits.reason(exits.DISK_FULL, _NO_LOG), exits.DISK_FULL
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(error):
        return exits.reason(exits.OUT_OF_MEMORY, _NO_LOG), exits.OUT_OF_MEMORY
    if "No space left on device" in str(error):  # safetensors and torch wrap the operating system's error
        return exits.reason(exits.DISK_FULL, _NO_LOG), exits.DISK_FULL
    return f"{type(error).__name__}: {error}", exits.FAILED


_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # how torch says it on a CPU
_NO_LOG = Path("/nonexistent")
