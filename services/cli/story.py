"""A run's events become how it stands: step of steps, loss from first to now, speed, what is left; and lines to read."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.cli import show, speeds

WINDOW = 20  # points over which the time for a step is averaged


@dataclass
class Story:
    """What is known of a run from its record and the events so far."""

    state: str = "queued"
    reason: str | None = None
    step: int = 0
    steps: int | None = None
    first: float | None = None
    last: float | None = None
    validation: float | None = None
    speed: float | None = None
    result: str | None = None
    rows: list[Mapping[str, Any]] = field(default_factory=list)  # what a benchmark has measured
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def take(self, event: Mapping[str, Any]) -> str | None:
        """Go on by one event; return the line that tells it, None for a point of the curve."""
        kind = event["type"]
        self.step = event.get("step") or self.step
        self.steps = event.get("steps") or self.steps
        if kind == "metric":
            return self._point(event)
        if kind == "status":
            self.state, self.reason = event.get("state") or self.state, event.get("reason")
            self.result = event.get("result") or self.result
            if self.state == "running":  # a new attempt measures anew
                self.rows.clear()
            self.points.clear()  # the time between two attempts is no time for a step
        if kind == "speed":
            self.rows.append(event)
        return line(event)

    def _point(self, event: Mapping[str, Any]) -> None:
        if (loss := event.get("loss")) is not None:
            self.first = loss if self.first is None else self.first
            self.last = loss
            if then := show.moment(event.get("time")):
                self.points.append((then.timestamp(), self.step))
        self.validation = event.get("validation_loss", self.validation)
        self.speed = event.get("tokens_per_second", self.speed)

    def left(self) -> float | None:
        """Seconds until the last step at the pace of the last points; None while that is unknown."""
        if not self.steps or len(self.points) < 2:
            return None
        (start, first), (end, last) = self.points[0], self.points[-1]
        return (end - start) / (last - first) * (self.steps - self.step) if last > first else None

    def figures(self) -> str:
        """The curve in one line: loss from first to now, validation, tokens per second."""
        parts = []
        if self.last is not None:
            moved = f"{show.loss(self.first)} → {show.loss(self.last)}" if self.step > 1 else show.loss(self.last)
            parts.append(f"loss {moved}")
        if self.validation is not None:
            parts.append(f"validation {show.loss(self.validation)}")
        if self.speed:
            parts.append(f"{self.speed:,.0f} tok/s")
        return " · ".join(parts)

    def progress(self) -> str:
        """One line for a terminal without a live display."""
        return " · ".join(
            filter(None, [f"step {self.step}" + (f"/{self.steps}" if self.steps else ""), self.figures()])
        )


def line(event: Mapping[str, Any]) -> str | None:
    """An event as a line to read; None for a point of the curve and what only a page shows."""
    kind, step = event["type"], event.get("step")
    if kind == "status":
        worker = f" on {event['worker']}" if event.get("worker") else ""
        reason = f": {event['reason']}" if event.get("reason") else ""
        result = f": {event['result']}" if event.get("result") else ""
        return f"{event.get('state')}{worker}{reason or result}"
    if kind == "checkpoint":
        return f"checkpoint at step {step} ({show.size(event.get('bytes'))})"
    if kind == "published":
        return f"published {event.get('name')}"
    if kind == "warning":
        return f"warning: {event.get('text')}"
    if kind == "speed":
        return speeds.line(event)
    if kind == "error":
        return f"error: {event.get('reason') or event.get('text')}"
    return event.get("text")


def point(event: Mapping[str, Any]) -> str:
    """A point of the curve as a line to read."""
    names = {
        "loss": "loss",
        "validation_loss": "validation",
        "reward_margin": "chosen over rejected",
        "learning_rate": "learning rate",
        "tokens_per_second": "tok/s",
    }
    values = [f"{label} {event[name]:.4g}" for name, label in names.items() if event.get(name) is not None]
    return " · ".join([f"step {event.get('step')}", *values])
