"""Log lines of every service: one JSON object a line on standard output, with the same keys.

`time` (UTC), `service` and `level` first; then `message`, or the fields of an event given as `extra={"fields": {...}}`.
Queries, tokens, keys and prompts are nobody's fields.
"""

import json
import logging
import re
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# of all others warnings only: some log addresses with queries
OURS = ("tandem", "services", "shared", "celery", "gunicorn")


class Lines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"time": when, "service": self.service, "level": record.levelname.lower()}
        if message := record.getMessage():
            line["message"] = message
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def to_stdout(service: str) -> logging.Handler:
    """Send everything that is logged in this process to standard output, as lines of `service`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Lines(service))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    return handler


def request_id(given: str | None) -> str:
    """The id that nginx gave a request, as it is in its X-Request-Id; a new one where there is none that can be used."""
    return given if given and ID.fullmatch(given) else uuid.uuid4().hex
