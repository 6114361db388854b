"""The worker's own /metrics, in its main process: the run in hand, followed in its directory, and how runs ended."""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from celery.signals import task_received
from celery.worker import state as worker_state
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from shared import metrics, runs
from shared.gpus import Glance
from shared.queue import KINDS
from shared.schemas import ENDED
from shared.settings import Settings
from shared.store import BadName, NotFound, Store

LAST = ("step", "loss", "learning_rate", "grad_norm", "tokens_per_second")  # fields of an event `metric`


class Training:
    """A collector for prometheus_client. Values of the run in hand stay until the next one begins, so that a loss that
    is not a number, which ends a run at once, is seen."""

    def __init__(self, store: Store) -> None:
        self.store, self.glance, self.lock = store, Glance(), threading.Lock()
        self.run_id: str | None = None
        self.offset = 0  # in its events
        self.last: dict[str, float] = {}
        self.told: tuple[float, int] | None = None  # (Unix seconds, step) of the last event `metric`
        self.attempts = Counter({(kind,): 0 for kind in KINDS})
        self.finished: Counter[tuple[str, ...]] = Counter({(kind, state): 0 for kind in KINDS for state in ENDED})

    def received(self, run_id: str) -> None:
        """A message about a run has come: from now on that one is followed."""
        with self.lock:
            self._follow()
            self.run_id, self.offset, self.last, self.told = run_id, 0, {}, None
            path = self.store.run(run_id) / "events.jsonl"
            if path.exists():  # a run that is resumed: what earlier attempts told has been counted
                self.offset = path.stat().st_size
                if runs.read_status(self.store, run_id).ended:  # the message is a repetition
                    self.run_id = None

    def collect(self) -> Iterator[Metric]:
        """Every value, as of now."""
        with self.lock:
            self._follow()
            last = dict(self.last)
            yield self._counted("runs_finished", "Runs that ended here.", ("kind", "outcome"), self.finished)
            yield self._counted("attempts", "Attempts of runs that began here.", ("kind",), self.attempts)
        yield metrics.gauge(
            "run_in_hand", "1 while the worker works on a run.", int(bool(worker_state.active_requests))
        )
        for name, text in (
            ("step", "Step of the run in hand, or of the last one."),
            ("steps", "Steps that it is to take."),
            ("loss", "Its training loss; NaN if it was not a finite number."),
            ("learning_rate", "Its learning rate."),
            ("grad_norm", "Length of its gradient before clipping."),
            ("tokens_per_second", "Tokens that it trains on in a second, padding left out."),
            ("step_seconds", "Time that one of its steps took."),
        ):
            yield metrics.gauge(f"training_{name}", text, last.get(name))
        yield from metrics.gpus(("trainer", gpu) for gpu in self.glance.latest())

    @staticmethod
    def _counted(name: str, text: str, labels: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Metric:
        family = CounterMetricFamily(f"tandem_{name}", text, labels=labels)
        for values, count in counts.items():
            family.add_metric(values, count)
        return family

    def _follow(self) -> None:
        """Read on in the events of the run."""
        while self.run_id:
            try:
                events, after = runs.read_events(self.store, self.run_id, self.offset)
            except (NotFound, BadName, ValueError):  # not yet on disk, or deleted
                return
            if after == self.offset:
                return
            kind, self.offset = runs.read_spec(self.store, self.run_id).kind, after
            for _, event in events:
                self._take(kind, event)

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        match event["type"]:
            case "metric" if "loss" in event:
                self.last |= {name: float(event[name]) for name in LAST if event.get(name) is not None}
                self._clock(event)
            case "warning" if event.get("kind") == "not_finite":
                self.last |= {"step": event["step"], "loss": float("nan")}
            case "status":
                if "worker" in event:
                    self.attempts[kind,] += 1
                if event.get("steps"):
                    self.last |= {"step": event.get("step", 0), "steps": event["steps"]}
                if event["state"] in ENDED:
                    self.finished[kind, event["state"]] += 1

    def _clock(self, event: dict[str, Any]) -> None:
        moment = datetime.fromisoformat(event["time"]).timestamp()
        if self.told and event["step"] > self.told[1]:
            self.last["step_seconds"] = (moment - self.told[0]) / (event["step"] - self.told[1])
        self.told = moment, event["step"]


def start(settings: Settings) -> None:
    """Serve /metrics, if a port for it is set, and follow the runs that messages come about."""
    if not settings.metrics_port:
        return
    training, registry = Training(Store(settings.data)), CollectorRegistry()
    registry.register(training)  # type: ignore[arg-type]  # it has `collect`, which is all

    @task_received.connect(weak=False)
    def _received(request: Any, **_: Any) -> None:
        training.received(str(request.id).partition(".")[0])

    start_http_server(settings.metrics_port, settings.metrics_host, registry)
