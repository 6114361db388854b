"""The GPUs that this process can see, as nvidia-smi tells of them."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

FIELDS = "index,uuid,name,memory.total,memory.used,utilization.gpu"
MIB = 1 << 20


def gpus() -> list[dict[str, Any]]:
    """Index, uuid, name, memory in bytes and use in percent of each GPU; none where there is no such program, or it fails.

    What a GPU does not tell, as one that shares the machine's memory, is None."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in answer.stdout.splitlines():
        index, uuid, name, total, used, percent = (part.strip() for part in line.split(","))
        memory = {"memory_total": _number(total, MIB), "memory_used": _number(used, MIB)}
        found.append({"index": _number(index), "uuid": uuid, "name": name, **memory, "use_percent": _number(percent)})
    return found


class Glance:
    """`latest()` answers at once with what a thread has read; it reads again when that is older than `seconds`."""

    def __init__(self, seconds: float = 5.0, read: Callable[[], list[dict[str, Any]]] = gpus) -> None:
        self.seconds, self.read = seconds, read
        self._found: list[dict[str, Any]] = []
        self._since = float("-inf")

    def latest(self) -> list[dict[str, Any]]:
        """The GPUs at the last look; empty until the first one is done."""
        if time.monotonic() - self._since >= self.seconds:
            self._since = time.monotonic()
            threading.Thread(target=self.look, daemon=True, name="gpus").start()
        return self._found

    def look(self) -> list[dict[str, Any]]:
        """The GPUs now: waits for what tells of them."""
        self._found = self.read() or self._found  # nvidia-smi may fail for a moment; the GPU is still there
        return self._found


def _number(text: str, unit: int = 1) -> int | None:
    return int(text) * unit if text.isdigit() else None
