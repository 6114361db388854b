"""The cache checked, repaired and removed by real child processes, against a hub of the test's own."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.trainer import tiny
from shared import cache, queue, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.hub import REPOSITORY, Cached, do, serving, work


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"hf_home": tmp_path / "hf"})


@pytest.fixture
def cached(own: Settings) -> Cached:
    return Cached(own.hf_home)


@pytest.fixture
def hub(cached: Cached) -> Iterator[str]:
    with serving(cached) as url:
        yield url


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
    code, _, reason = work(needing, spec.id)
    assert code != 0 and "TANDEM_BASE_MODEL" in reason and cached.snapshot.exists()


@pytest.mark.slow
def test_the_tiny_base_is_built_anew_as_no_hub_has_it(own: Settings, hf_home: Path) -> None:
    """The cache's own tiny base is copied, its weights cut off, and built again where it stood."""
    folder = cache.folder_of(own.hf_home, tiny.REPO_ID, "model")
    shutil.copytree(cache.folder_of(hf_home, tiny.REPO_ID, "model"), folder, symlinks=True)
    weights = next(folder.glob("snapshots/*/model.safetensors")).resolve()
    os.truncate(weights, weights.stat().st_size - 100)
    assert cache.read(folder).broken
    store = Store(own.data)
    spec = runs.create(store, "fetch-1", "fetch", Job(repository=tiny.REPO_ID, action="repair"))
    assert work(own, spec.id)[::2] == (0, "built again")
    assert cache.read(folder).broken == [] and not list(folder.parent.glob(".staging-*"))
