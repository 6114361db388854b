"""A process that is measured: its output in a file, its progress said, and ended with all that it started."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SAY_SECONDS, LOOK_SECONDS, GRACE_SECONDS = 5.0, 0.2, 20.0
LAST = 3000  # characters of a log that are shown when its process failed


class Child:
    """`command` while the block lasts, in a process group of its own."""

    def __init__(self, name: str, command: list[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.name, self.command, self.log = name, command, log
        self.environment, self.folder = environment, folder

    def __enter__(self) -> "Child":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        say(f"{self.name} starts; its log is {self.log}")
        self.began = self._said = time.monotonic()
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: Any) -> None:
        """End it politely; then by force whatever is left of its group, as a vLLM engine whose server has died."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                say(f"{self.name} did not end within {GRACE_SECONDS:.0f} s and is ended by force")
        end = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):  # raised once nobody is left, whose memory is free then
            while time.monotonic() < end:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                time.sleep(LOOK_SECONDS)

    def lines(self) -> Iterator[str]:
        """Its output, line by line as it comes, to its end. Raises RuntimeError with the last of it when it failed."""
        with open(self.log, errors="replace") as file:
            kept = ""
            while True:
                ended = self.process.poll() is not None
                kept += file.read()
                *whole, kept = kept.split("\n")
                yield from whole
                if ended:
                    break
                self._say(self._last_line())
                time.sleep(LOOK_SECONDS)
        if self.process.returncode:
            raise self._failure(f"ended with {self.process.returncode}")

    def wait(self, missing: Callable[[], str | None], seconds: float) -> float:
        """The seconds from its start until nothing is missing. Raises RuntimeError when it ends before that, or takes too long."""
        while (why := missing()) is not None:
            if self.process.poll() is not None:
                raise self._failure(f"ended with {self.process.returncode} before it was ready")
            if time.monotonic() - self.began > seconds:
                raise self._failure(f"is not ready after {seconds:.0f} s: {why}")
            self._say(why)
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - self.began

    def _say(self, what: str) -> None:
        if time.monotonic() - self._said >= SAY_SECONDS:
            self._said = time.monotonic()
            say(f"{self.name}, {self._said - self.began:.0f} s: {what}")

    def _last_line(self) -> str:
        lines = re.split(r"[\r\n]+", self.log.read_text(errors="replace").strip())
        return lines[-1][-150:]

    def _failure(self, what: str) -> RuntimeError:
        return RuntimeError(
            f"{self.name} {what}. The end of {self.log}:\n{self.log.read_text(errors='replace')[-LAST:]}"
        )


def say(text: str) -> None:
    """What goes on, for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
