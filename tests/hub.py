"""A small Hugging Face cache, a hub that has its files, and the trainer's process that works on both."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from shared import cache, queue, runs
from shared.schemas import Action, Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import ROOT, environment

REPOSITORY = "someone/something"
NOWHERE = "http://127.0.0.1:1"
COMMIT = "a" * 40


def safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


class Cached:
    """A repository in a cache: blobs named by their hash, as the hub names them, and a snapshot of links to them."""

    def __init__(self, hf_home: Path, repository: str = REPOSITORY, type_: str = "model") -> None:
        self.folder = cache.folder_of(hf_home, repository, type_)
        self.snapshot = self.folder / "snapshots" / COMMIT
        for folder in (self.snapshot, self.folder / "blobs", self.folder / "refs"):
            folder.mkdir(parents=True)
        (self.folder / "refs" / "main").write_text(COMMIT)
        self.add("config.json", b"{}", large=False)
        self.add("model-1.safetensors", safetensors(b"first"))
        self.add("model-2.safetensors", safetensors(b"second"))
        parts = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
        self.add("model.safetensors.index.json", json.dumps({"weight_map": parts}).encode(), large=False)

    def add(self, name: str, content: bytes, large: bool = True) -> Path:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        blob = self.folder / "blobs" / (hashlib.sha256(content).hexdigest() if large else git)
        blob.write_bytes(content)
        (self.snapshot / name).symlink_to(os.path.relpath(blob, self.snapshot))
        return blob

    def blob(self, name: str) -> Path:
        return (self.snapshot / name).resolve()

    def broken(self) -> list[str]:
        return [f"{found.file} {found.problem}" for found in cache.read(self.folder).broken]

    def hashed(self) -> list[str]:
        return [found.file for found in cache.thorough(self.snapshot, lambda _: None)]


@contextmanager
def serving(cached: Cached) -> Iterator[str]:
    """The address of a hub that has every file of `cached` as it is now, whatever becomes of the cache."""
    contents = {path.name: (path.read_bytes(), path.resolve().name) for path in cached.snapshot.iterdir()}

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            content, etag = contents.get(self.path.rpartition("/")[2], (None, ""))
            self.send_response(200 if content is not None else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(contents.get(self.path.rpartition("/")[2], (b"", ""))[0])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def do(own: Settings, action: Action, hub: str = NOWHERE) -> tuple[int, list[str], str]:
    """`work` on a new run with this action."""
    store = Store(own.data)
    job, _ = queue.prepare(own, store, "fetch", Job(repository=REPOSITORY, action=action))
    return work(own, runs.create(store, runs.new_id("fetch"), "fetch", job).id, hub)


def work(own: Settings, run_id: str, hub: str = NOWHERE) -> tuple[int, list[str], str]:
    """(exit code, warnings, result or reason) of the run's child process."""
    done = subprocess.run(
        [sys.executable, "-m", "services.trainer.fetch", run_id],
        cwd=ROOT,
        env={**environment(own), "HF_ENDPOINT": hub},
        capture_output=True,
        timeout=280,
    )
    events = list(runs.all_events(Store(own.data), run_id))
    print(done.stdout.decode(), done.stderr.decode())
    warnings = [event["text"] for event in events if event["type"] == "warning"]
    last = next(event for event in reversed(events) if event["type"] in ("published", "error"))
    return done.returncode, warnings, last.get("name") or last["reason"]
