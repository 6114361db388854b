"""Files that are being read: how far each is, kept in memory under the id that its sender chose."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import HTTPException

from services.dashboard.api.dataset_models import Upload
from shared.datasets.card import Rows
from shared.datasets.ingest import Progress

KEPT = 200  # the newest ones; an ended one is of use only to somebody whose connection broke
_known: OrderedDict[str, Upload] = OrderedDict()
_lock = threading.Lock()


def get(upload: str) -> Upload | None:
    """How far an upload is; None if nobody has sent one under this id, or long ago."""
    return _known.get(upload)


@contextmanager
def watched(upload: str | None) -> Iterator[tuple[Upload, Progress]]:
    """While a file is received and read: its state, and what `ingest` is to call. A failure is noted in passing."""
    state = Upload(phase="receiving")
    with _lock:
        if upload:
            _known[upload] = state
        while len(_known) > KEPT:
            _known.popitem(last=False)

    def progress(read: int, total: int, rows: Rows) -> None:
        state.phase, state.read, state.total = "reading", read, total
        state.accepted, state.rejected = rows.accepted, rows.rejected

    try:
        yield state, progress
        state.phase = "done"
    except Exception as error:
        ours = not isinstance(error, (HTTPException, OSError))  # their words are not for a person
        state.phase, state.message = "failed", str(error) if ours else None
        raise
