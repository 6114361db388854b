"""The access log: one JSON line a request, with the id that nginx gave it; and gunicorn's own lines in the same form."""

import logging
import time

from flask import Flask, Response, g, request
from gunicorn.config import Config
from gunicorn.glogging import Logger

from shared import logs

logger = logging.getLogger("tandem.access")


class Gunicorn(Logger):
    """`gunicorn --logger-class services.dashboard.log.Gunicorn`: everything goes through one formatter."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        logs.to_stdout("dashboard")
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def register(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.request_id = logs.request_id(request.headers.get("X-Request-Id"))
    g.began = time.monotonic()


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    fields = {
        "request_id": g.request_id,
        "who": g.get("who"),
        "method": request.method,
        "path": request.path,  # never the query: it may hold a sign-in token
        "status": response.status_code,
        "ms": round(1000 * (time.monotonic() - g.began), 1),
        "bytes": response.content_length,
    }
    logger.info("", extra={"fields": fields})
    return response
