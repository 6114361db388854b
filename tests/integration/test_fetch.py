"""The cache checked, repaired and removed by real child processes, against a hub of the test's own."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared import queue, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.conftest import ROOT, environment
from tests.unit.test_cache import COMMIT, Cached

REPOSITORY = "someone/something"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"hf_home": tmp_path / "hf"})


@pytest.fixture
def cached(own: Settings) -> Cached:
    return Cached(own.hf_home)


@pytest.fixture
def hub(cached: Cached) -> Iterator[str]:
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
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def do(own: Settings, action: str, hub: str = NOWHERE) -> tuple[int, list[str], str]:
    """(exit code, warnings, result or reason) of the run's child process."""
    store = Store(own.data)
    job, _ = queue.prepare(own, store, "fetch", Job(repository=REPOSITORY, action=action))
    spec = runs.create(store, runs.new_id("fetch"), "fetch", job)
    done = subprocess.run(
        [sys.executable, "-m", "services.trainer.fetch", spec.id],
        cwd=ROOT,
        env={**environment(own), "HF_ENDPOINT": hub},
        capture_output=True,
        timeout=120,
    )
    events = list(runs.all_events(store, spec.id))
    print(done.stdout.decode(), done.stderr.decode())
    warnings = [event["text"] for event in events if event["type"] == "warning"]
    last = next(event for event in reversed(events) if event["type"] in ("published", "error"))
    return done.returncode, warnings, last.get("name") or last["reason"]


def flip(blob: Path) -> bytes:
    """Change a byte in the middle of the values; returns what was there."""
    content = blob.read_bytes()
    blob.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    return content


def test_a_check_hashes_every_file_and_names_what_is_broken(own: Settings, cached: Cached) -> None:
    assert do(own, "check") == (0, [], "nothing broken in 4 files (0.0 MiB)")
    flip(cached.blob("model-2.safetensors"))
    cached.blob("config.json").unlink()
    code, warnings, result = do(own, "check")
    assert (code, result) == (0, "2 broken in 3 files (0.0 MiB)")
    assert [warning.partition(" ")[0] for warning in warnings] == ["config.json", "model-2.safetensors"]


def test_a_repair_brings_what_is_broken_and_nothing_else(own: Settings, cached: Cached, hub: str) -> None:
    whole = flip(cached.blob("model-2.safetensors"))
    cached.blob("config.json").unlink()
    (cached.snapshot / "model-1.safetensors").unlink()
    index = cached.blob("model.safetensors.index.json")
    untouched = index.stat().st_ino
    code, _, result = do(own, "repair", hub)
    assert (code, result) == (0, "3 repaired")
    assert cached.broken() == cached.hashed() == []
    assert cached.blob("model-2.safetensors").read_bytes() == whole
    assert (cached.snapshot / "config.json").read_bytes() == b"{}"
    assert index.stat().st_ino == untouched
    assert do(own, "repair")[2].startswith("nothing broken"), "and it needs no hub to see that"


def test_without_a_network_a_repair_says_so_and_removes_nothing(own: Settings, cached: Cached) -> None:
    blob = cached.blob("model-2.safetensors")
    flip(blob)
    broken = blob.read_bytes()
    code, _, reason = do(own, "repair")
    assert code != 0
    assert "model-2.safetensors" in reason and "nothing was removed" in reason and "network" in reason
    assert blob.read_bytes() == broken


def test_half_a_download_is_swept_away_without_a_network(own: Settings, cached: Cached) -> None:
    half = cached.folder / "blobs" / f"{hashlib.sha256().hexdigest()}.incomplete"
    half.touch()
    os.utime(half, (0, 0))
    assert do(own, "repair")[:1] == (0,)
    assert not half.exists()


def test_what_is_removed_is_gone_whole(own: Settings, cached: Cached) -> None:
    assert do(own, "remove")[0] == 0
    assert [path.name for path in (own.hf_home / "hub").iterdir()] == []


def test_a_removal_is_refused_when_something_has_begun_to_need_it(own: Settings, cached: Cached) -> None:
    store = Store(own.data)
    job, _ = queue.prepare(own, store, "fetch", Job(repository=REPOSITORY, action="remove"))
    spec = runs.create(store, "fetch-1", "fetch", job)
    needing = own.model_copy(update={"base_model": REPOSITORY})
    command = [sys.executable, "-m", "services.trainer.fetch", spec.id]
    done = subprocess.run(command, cwd=ROOT, env=environment(needing), capture_output=True, timeout=120)
    assert done.returncode != 0 and cached.snapshot.exists()
    assert "TANDEM_BASE_MODEL" in next(runs.all_events(store, spec.id, "error"))["reason"]


@pytest.mark.slow
def test_the_tiny_base_is_built_anew_as_no_hub_has_it(own: Settings, hf_home: Path) -> None:
    """The cache's own tiny base is copied, its weights cut off, and built again where it stood."""
    import shutil

    from services.trainer import tiny
    from shared import cache

    folder = cache.folder_of(own.hf_home, tiny.REPO_ID, "model")
    shutil.copytree(cache.folder_of(hf_home, tiny.REPO_ID, "model"), folder, symlinks=True)
    weights = next(folder.glob("snapshots/*/model.safetensors")).resolve()
    os.truncate(weights, weights.stat().st_size - 100)
    assert cache.read(folder).broken
    store = Store(own.data)
    spec = runs.create(store, "fetch-1", "fetch", Job(repository=tiny.REPO_ID, action="repair"))
    command = [sys.executable, "-m", "services.trainer.fetch", spec.id]
    done = subprocess.run(command, cwd=ROOT, env=environment(own), capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert cache.read(folder).broken == [] and not list(folder.parent.glob(".staging-*"))
