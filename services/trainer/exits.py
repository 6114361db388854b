"""How a run's child process says what became of it: its exit code, and the sentence for each that says nothing itself."""

import signal
from pathlib import Path

OK = 0
STOPPED = 10  # asked to stop, and stopped with a checkpoint
FAILED = 11  # an `error` event tells why
DISK_FULL = 12  # no room even for that event
OUT_OF_MEMORY = 13


def reason(code: int, log: Path) -> str:
    """A sentence for an exit that left no `error` event."""
    if code == DISK_FULL:
        return "The disk is full. Delete exports or checkpoints that are not needed, then resume the run."
    if code == OUT_OF_MEMORY:
        return "The GPU ran out of memory. Lower batch_size or max_length, or take the recipe memory_efficient."
    if code == -signal.SIGKILL:
        return (
            "The process was killed (signal 9), most likely because the machine ran out of memory. "
            "Lower batch_size or max_length, or give the trainer more memory, then resume the run."
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"The process ended with {how}. Its last words: {_tail(log)}"


def _tail(log: Path) -> str:
    if not log.exists():
        return "none."
    lines = [line for line in log.read_bytes()[-4096:].decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "none."
