"""What the dashboard sees of the other services: looked at all the time by one thread, so that no page waits for a dead one."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from services.dashboard import health
from shared.schemas import now
from shared.settings import Settings
from shared.store import Store, append_line, free_bytes, write_atomic

LOOK_SECONDS = 2.0
SAMPLE_SECONDS = 10.0
KEPT = 8640  # samples: one day


@dataclass(frozen=True)
class Look:
    """One look at everything."""

    services: dict[str, dict[str, Any]]
    waiting: int | None  # messages in Redis; None if it does not answer
    gpus: list[dict[str, Any]]

    @property
    def troubles(self) -> list[str]:
        """The services that do not do their work."""
        return [name for name, service in self.services.items() if service["state"] not in ("up", "asleep")]

    @property
    def asleep(self) -> list[str]:
        """The services whose GPU a run has: they wake by themselves."""
        return [name for name, service in self.services.items() if service["state"] == "asleep"]


@dataclass
class Watch:
    """`start()` it once a process; `latest()` answers at once. Without its thread, as in tests, each answer is a new look."""

    settings: Settings
    store: Store
    _last: Look | None = None
    _there: threading.Event = field(default_factory=threading.Event)
    _running: bool = False

    def start(self) -> None:
        self._running = True
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def latest(self) -> Look:
        """The newest look; waits for the first one only."""
        if self._running and self._there.wait(3) and self._last:
            return self._last
        return self._look()

    def history(self, seconds: float) -> Iterator[dict[str, Any]]:
        """The samples of the last `seconds`, the newest first: time in Unix seconds, free bytes, memory, load, GPUs."""
        since = time.time() - seconds
        path = self.store.history()
        if path.exists():
            for line in reversed(path.read_bytes().splitlines()):
                if line.endswith(b"}"):
                    sample = json.loads(line)
                    if sample["time"] < since:
                        return
                    yield sample

    def _look(self) -> Look:
        """A look; a service that does not say since when it is so, is so since it was first seen so."""
        look = Look(*health.look(self.settings, self.store))
        for name, service in look.services.items():
            if before := self._last.services.get(name) if self._last else None:
                same = before["state"] == service["state"]
                service["since"] = service["since"] or (before["since"] if same else now())
        return look

    def _run(self) -> None:
        sampled = 0.0
        while True:
            self._last = self._look()
            self._there.set()
            if time.time() - sampled >= SAMPLE_SECONDS:
                sampled = time.time()
                self._sample(self._last)
            time.sleep(LOOK_SECONDS)

    def _sample(self, look: Look) -> None:
        used, total = memory()
        gpus = [{key: gpu.get(key) for key in ("uuid", "memory_used", "use_percent")} for gpu in look.gpus]
        value = {"time": round(time.time()), "free": free_bytes(self.store.root), "memory_used": used}
        value |= {"memory_total": total, "load": os.getloadavg()[0], "waiting": look.waiting, "gpus": gpus}
        try:
            append_line(self.store.history(), json.dumps(value))
            lines = self.store.history().read_bytes().splitlines(keepends=True)
            if len(lines) > 2 * KEPT:
                write_atomic(self.store.history(), b"".join(lines[-KEPT:]))
        except OSError:  # a full disk: the next sample may be kept again
            return


def memory() -> tuple[int, int]:
    """(bytes of this machine's memory in use, bytes in all), of /proc/meminfo."""
    with open("/proc/meminfo") as file:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in file}
    return (kib["MemTotal"] - kib["MemAvailable"]) * 1024, kib["MemTotal"] * 1024
