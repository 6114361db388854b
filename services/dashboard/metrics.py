"""/metrics of the dashboard: what its watch saw last, the runs on disk, and its own answers. A scrape walks no disk.

Prometheus, inside the network, needs no key; what comes through nginx, which says so, needs one as everywhere else.
"""

import os
import shutil
import time
from collections.abc import Iterator
from itertools import chain

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric

from services.dashboard.context import Context, here
from services.dashboard.views.told import told
from services.dashboard.watch import memory
from shared import runs
from shared.metrics import MEDIA_TYPE, exposition, gauge, gpus
from shared.schemas import Status
from shared.store import NotFound, Store
from shared.workers import trainers

NAME = "tandem_metrics"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)  # seconds

blueprint = Blueprint("metrics", __name__)


class Answers:
    """The dashboard's own answers, counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tandem_http_requests",
            "Requests that the dashboard answered, by route, method and class of status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "tandem_http_request_duration_seconds",
            "Time until the dashboard's answer began, by route.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def count(self, response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.method in METHODS else "other"
        self.requests.labels(route, method, f"{response.status_code // 100}xx").inc()
        self.seconds.labels(route).observe(time.monotonic() - g.began)
        return response


def register(app: Flask) -> None:
    app.extensions[NAME] = Answers()
    app.after_request(app.extensions[NAME].count)
    app.register_blueprint(blueprint)


def from_inside() -> bool:
    """Whether the request did not come through nginx, which adds this header to all that it passes on."""
    return "X-Real-IP" not in request.headers


@blueprint.get("/metrics")
def metrics() -> Response:
    """The exposition."""
    answers: Answers = current_app.extensions[NAME]
    return Response(exposition(chain(seen(here()), answers.registry.collect())), headers={"Content-Type": MEDIA_TYPE})


def seen(context: Context) -> Iterator[Metric]:
    """What the dashboard sees of the whole."""
    look, store = context.watch.latest(), context.store
    up = {name: int(name not in look.troubles) for name in look.services}
    yield gauge("service_up", "1 if the service does its work, 0 if it is down or still starting.", up, "service")
    yield gauge("queue_messages", "Messages that wait in Redis; none while it does not answer.", look.waiting)
    workers = trainers(context.settings, store)
    silent = workers[0]["silent"] if workers else None
    yield gauge("worker_heartbeat_age_seconds", "Time since the trainer last showed that it lives.", silent)
    by_state = runs.by_state(store)
    yield gauge("runs", "Runs on disk, by their state.", {state: len(ids) for state, ids in by_state.items()}, "state")
    yield from _running(store, max(by_state["running"], default=None))
    folders = {"data": store.root, "cache": context.settings.hf_home}
    disks = {name: shutil.disk_usage(folder) for name, folder in folders.items() if folder.exists()}
    free, total = ({name: getattr(disk, part) for name, disk in disks.items()} for part in ("free", "total"))
    yield gauge("disk_free_bytes", "Space left on the disk of the data directory, of the cache.", free, "disk")
    yield gauge("disk_total_bytes", "Size of the disk of the data directory, of the cache.", total, "disk")
    used, whole = memory()
    yield gauge("memory_used_bytes", "Memory of this machine in use.", used)
    yield gauge("memory_total_bytes", "Memory of this machine in all.", whole)
    yield gauge("load_average", "Processes that ran or waited for a processor, mean of a minute.", os.getloadavg()[0])
    yield from gpus((service, gpu) for gpu in look.gpus for service in gpu["held_by"])


def _running(store: Store, run_id: str | None) -> Iterator[Metric]:
    """The run that is running, one of them where there are several; no samples where there is none."""
    status, speed, silence = Status(), None, None
    if run_id:
        try:
            status, story = runs.read_status(store, run_id), told(store, run_id)
            speed = story.speed[-1] if story.speed else None
            silence = time.time() - (store.run(run_id) / "events.jsonl").stat().st_mtime
        except (NotFound, FileNotFoundError):  # deleted while we look
            run_id = None
    yield gauge("run_step", "Step of the run that is running.", status.step if run_id else None)
    yield gauge("run_steps", "Steps that it is to take.", status.steps)
    yield gauge("run_loss", "Its training loss.", status.loss)
    yield gauge("run_tokens_per_second", "Tokens that it trains on in a second, padding left out.", speed)
    yield gauge("run_silence_seconds", "Time since it last told something.", silence)
