"""What vLLM's processes log: as lines of ours on standard output, and how far they are while they start."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

STAGES = {  # by what vLLM logs when the one before has ended
    "Starting to load model": "its weights are being read",
    "Model loading took": "its kernels are being compiled, which takes minutes the first time",
    "KV cache size: ": "its CUDA graphs are being recorded",
}
LOOK_SECONDS = 0.5


@contextmanager
def followed(say: Callable[[str], None]) -> Iterator[None]:
    """While vLLM starts in here, `say` is told each stage that it comes to."""
    with TemporaryDirectory(prefix="vllm-") as folder:
        log, config = Path(folder) / "log", Path(folder) / "logging.json"
        log.touch()
        config.write_text(json.dumps(_logging(log)))
        os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(config)  # each of its processes reads it
        over = threading.Event()
        follower = threading.Thread(target=_follow, args=(log, say, over), daemon=True, name="vllm's start")
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()


def stage(log: str) -> str | None:
    """The last stage that a log tells of."""
    reached = {log.rfind(phrase): said for phrase, said in STAGES.items() if phrase in log}
    return reached[max(reached)] if reached else None


def _follow(log: Path, say: Callable[[str], None], over: threading.Event) -> None:
    said = None
    while not over.wait(LOOK_SECONDS):
        now = stage(log.read_text(errors="replace"))
        if now and now != said:
            said = now
            say(f"the model is being loaded: {now}")


def _logging(log: Path) -> dict[str, Any]:
    """For logging.config.dictConfig."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": "shared.logs.Lines", "service": "inference"}},
        "handlers": {
            "lines": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "lines"},
            "file": {"class": "logging.FileHandler", "filename": str(log)},
        },
        "loggers": {"vllm": {"handlers": ["lines", "file"], "level": "INFO", "propagate": False}},
    }
