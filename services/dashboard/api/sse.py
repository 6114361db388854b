"""A run's events as they happen: server-sent events that resume exactly where the connection broke."""

import json
import threading
import time
from collections.abc import Iterator

from flask import Response, request
from pydantic import BaseModel, Field

from services.dashboard.api.models import binary
from services.dashboard.api.runs import RunPath, api
from services.dashboard.context import store
from services.dashboard.errors import Refusal, problem
from shared import runs
from shared.schemas import ENDED
from shared.store import NotFound, Store

POLL = 0.2
QUIET = 15.0  # seconds after which a comment shows that the line is alive, and finds out whether somebody listens
MOST = 40  # streams at once: each holds a thread of the 64
_streams = threading.BoundedSemaphore(MOST)


class StreamQuery(BaseModel):
    after: int = Field(0, ge=0, description="byte offset to go on from; the header Last-Event-ID wins")


@api.get("/<run_id>/events/stream", responses={200: binary("text/event-stream", "events"), **problem(400, 404, 503)})
def stream(path: RunPath, query: StreamQuery) -> Response:
    """Server-sent events: `event` is the type, `id` the offset after the event. `end` follows the last one of an ended run."""
    offset = _start(query.after)
    try:
        runs.read_events(store(), path.run_id, offset, limit_bytes=1)
    except ValueError as error:
        raise Refusal(400, "bad_request", str(error)) from error
    if not _streams.acquire(blocking=False):
        raise Refusal(
            503, "refused", f"{MOST} streams are open already. Close a tab, or ask for /events from time to time."
        )
    response = Response(_follow(store(), path.run_id, offset), mimetype="text/event-stream")
    response.call_on_close(_streams.release)
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _start(after: int) -> int:
    last = request.headers.get("Last-Event-ID", "")
    if not last:
        return after
    if not last.isdecimal():
        raise Refusal(
            400, "bad_request", f"Last-Event-ID is {last[:40]!r}; it must be the id of an event of this stream."
        )
    return int(last)


def _follow(store: Store, run_id: str, offset: int) -> Iterator[str]:
    """The text of the stream. The status is read before the events: what a run says last, it says before it has ended."""
    yield "retry: 1000\n\n"
    said = time.monotonic()
    while True:
        try:
            ended = runs.read_status(store, run_id).state in ENDED
            events, after = runs.read_events(store, run_id, offset)
        except NotFound:
            ended, events, after = True, [], offset  # the run has been deleted
        if events:
            yield "".join(f"event: {e['type']}\nid: {end}\ndata: {json.dumps(e)}\n\n" for end, e in events)
            said, offset = time.monotonic(), after
        elif ended:
            yield f"event: end\nid: {offset}\ndata: {{}}\n\n"
            return
        else:
            if time.monotonic() - said > QUIET:
                yield ": still here\n\n"
                said = time.monotonic()
            time.sleep(POLL)
