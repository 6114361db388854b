"""The access log: one JSON line a request, with the id that nginx gave it."""

import json
import logging
import re
import sys
import time
import uuid

from flask import Flask, Response, g, request

from shared.schemas import now

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger("tandem.access")


def to_stdout() -> None:
    """Send this service's log lines to standard output, as they are."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # each look at the other services would be two lines


def register(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
    g.began = time.monotonic()


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    line = {
        "time": now(),
        "request": g.request_id,
        "who": g.get("who"),
        "method": request.method,
        "path": request.path,  # never the query: it may hold a sign-in token
        "status": response.status_code,
        "ms": round(1000 * (time.monotonic() - g.began), 1),
        "bytes": response.content_length,
    }
    logger.info(json.dumps(line))
    return response
