"""What a run's events come to: read once and then on from where the last look ended, so that a page may ask again and again."""

import json
import threading
from collections import deque
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from shared.store import NotFound, Store

EARLY, LATE, PACES = 5, 10, 40
WHOLE = 500  # metrics of one reading that are all parsed; of more, an even part is
KEPT = 64  # runs that are remembered
_known: dict[Path, "Told"] = {}
_lock = threading.Lock()


@dataclass
class Told:
    """The story of one run so far. Losses are training losses unless they are said to be of the validation."""

    inode: int
    offset: int = 0
    last: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last event of each type but `metric`
    warnings: list[dict[str, Any]] = field(default_factory=list)
    saved: dict[int, str] = field(default_factory=dict)  # step of a checkpoint -> when
    resumed: list[int] = field(default_factory=list)  # steps that a later attempt began with
    halved: int = 0  # times that the micro batch was made smaller, as memory ran out
    early: list[float] = field(default_factory=list)  # the first losses
    late: deque[float] = field(default_factory=lambda: deque(maxlen=LATE))  # the newest losses
    lowest: float | None = None  # the lowest mean of LATE losses
    points: int = 0
    validations: list[tuple[int, float]] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)  # the first tokens per second, without the first step's
    speed: deque[float] = field(default_factory=lambda: deque(maxlen=LATE))
    rows: list[dict[str, Any]] = field(default_factory=list)  # `speed` events of the attempt in hand
    memory: int | None = None  # bytes, of the GPU that has most
    gpus: int = 1
    paces: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=PACES))  # (Unix seconds, step)

    @property
    def start(self) -> float | None:
        """The loss at the start: the mean of the first points, fewer while there are few."""
        return fmean(self.early[: max(1, min(EARLY, self.points // 4))]) if self.early else None

    @property
    def now(self) -> float | None:
        """The loss now: the mean of the newest points, fewer while there are few."""
        return fmean(list(self.late)[-max(1, min(LATE, self.points // 4)) :]) if self.late else None

    @property
    def step_seconds(self) -> float | None:
        """Seconds that a step takes at present."""
        if len(self.paces) < 2 or self.paces[-1][1] <= self.paces[0][1]:
            return None
        return (self.paces[-1][0] - self.paces[0][0]) / (self.paces[-1][1] - self.paces[0][1])

    def copy(self) -> "Told":
        """As it is now: another request may read on meanwhile."""
        changing = {name: copy(value) for name, value in vars(self).items() if isinstance(value, (list, dict, deque))}
        return replace(self, **changing)

    def read(self, block: bytes) -> None:
        """Take in whole lines."""
        lines = block.splitlines()
        metrics = [line for line in lines if b'"type": "metric"' in line[:99]]
        for line in lines:
            if b'"type": "metric"' not in line[:99]:
                self._take(json.loads(line))
        steps = [line for line in metrics if b'"validation_loss": ' not in line]
        every = max(1, len(steps) // WHOLE)
        self.points += len(steps)
        for line in [*steps[:LATE], *steps[LATE : -2 * PACES : every], *steps[max(LATE, len(steps) - 2 * PACES) :]]:
            self._point(json.loads(line))
        for line in metrics:
            if b'"validation_loss": ' in line:
                event = json.loads(line)
                self.validations.append((event["step"], event["validation_loss"]))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "warning":
            self.warnings.append(event)
        elif kind == "speed":
            self.rows.append(event)
        elif kind == "halved":
            self.halved += 1
        elif kind == "checkpoint":
            self.saved[event["step"]] = event["time"]
        elif kind == "status" and event.get("state") == "running" and "step" not in event:  # a new attempt
            self.rows.clear()
        elif kind == "status" and "step" in event:
            self.paces.clear()
            self.gpus = event.get("gpus", 1)
            if event["step"]:
                self.resumed.append(event["step"])
        self.last[kind] = event

    def _point(self, event: dict[str, Any]) -> None:
        loss, speed = event.get("loss"), event.get("tokens_per_second")
        if loss is not None:
            if len(self.early) < EARLY:
                self.early.append(loss)
            self.late.append(loss)
            if len(self.late) == LATE:
                self.lowest = min(self.lowest if self.lowest is not None else loss, fmean(self.late))
        if speed is not None:
            if event["step"] > 1 and len(self.speeds) < LATE:
                self.speeds.append(speed)
            self.speed.append(speed)
        self.memory = event.get("memory_bytes", self.memory)
        self.paces.append((datetime.fromisoformat(event["time"]).timestamp(), event["step"]))


def told(store: Store, run_id: str) -> Told:
    """The story of a run up to its last whole event. Raises NotFound."""
    path = store.run(run_id) / "events.jsonl"
    with _lock:
        try:
            with path.open("rb") as file:
                stat = path.stat()
                story = _known.pop(path, None)
                if story is None or story.inode != stat.st_ino or story.offset > stat.st_size:
                    story = Told(stat.st_ino)
                file.seek(story.offset)
                block = file.read()
        except FileNotFoundError:
            raise NotFound(f"There is no run {run_id!r}.") from None
        block = block[: block.rfind(b"\n") + 1]
        story.read(block)
        story.offset += len(block)
        _known[path] = story  # the newest last
        if len(_known) > KEPT:
            del _known[next(iter(_known))]
        return story.copy()
