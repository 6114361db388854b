"""How a run's child process says what became of it: its exit code, and the sentence for each that says nothing itself."""

import re
import signal
from pathlib import Path

OK = 0
STOPPED = 10  # asked to stop, and stopped with a checkpoint
FAILED = 11  # an `error` event tells why
DISK_FULL = 12  # no room even for that event
OUT_OF_MEMORY = 13

# How often the kernel has killed for want of memory: in this container (cgroup v2, v1), else on this machine.
_KILLS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
NO_LIMIT = 1 << 50  # what cgroup v1 says for "none" is a number far above this


def oom_kills() -> int:
    """How many processes the kernel has killed here so far because memory ran out; 0 if it does not tell."""
    for path in _KILLS:
        if told := re.search(r"^oom_kill (\d+)$", _text(path), re.MULTILINE):
            return int(told[1])
    return 0


def memory_limit() -> int | None:
    """The container's memory limit in bytes; None without one."""
    limit = next((text.strip() for text in map(_text, _LIMITS) if text), "max")
    return int(limit) if limit.isdigit() and int(limit) < NO_LIMIT else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def reason(code: int, log: Path, starved: bool = False) -> str:
    """A sentence for an exit that left no `error` event; `starved` says that the kernel killed for want of memory."""
    if code == DISK_FULL:
        return "The disk is full. Delete exports or checkpoints that are not needed, then resume the run."
    if code == OUT_OF_MEMORY:
        return "The run ran out of memory. Lower batch_size or max_length, or take the recipe memory_efficient."
    if code == -signal.SIGKILL and starved:
        limit = memory_limit()
        most = (
            f"the {limit / (1 << 30):.1f} GiB that the trainer's container may use"
            if limit
            else "this machine's memory"
        )
        return (
            f"Out of memory: the run needed more than {most}, so the kernel ended it. Lower batch_size or max_length, or "
            "give it more (TRAINER_MEMORY), then resume the run."
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"The process ended with {how}. Its last words: {_tail(log)}"


def _tail(log: Path) -> str:
    if not log.exists():
        return "none."
    lines = [line for line in log.read_bytes()[-4096:].decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "none."
