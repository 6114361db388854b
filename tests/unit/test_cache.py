"""The Hugging Face cache on the disk: what is found broken, quickly and thoroughly, on small caches made for it."""

import os
import struct
import time
from pathlib import Path

import pytest

from shared import cache
from shared.store import Store
from tests.hub import COMMIT, Cached


@pytest.fixture
def cached(tmp_path: Path) -> Cached:
    return Cached(tmp_path)


def test_a_whole_repository_has_no_problem(cached: Cached, tmp_path: Path) -> None:
    (found,) = cache.repositories(tmp_path)
    assert (found.repository, found.type, found.broken) == ("someone/something", "model", [])
    assert [(r.commit, r.refs, r.files) for r in found.revisions] == [(COMMIT, ["main"], 4)]
    assert found.bytes == sum(path.stat().st_size for path in (cached.folder / "blobs").iterdir())
    assert cached.hashed() == []


def test_weights_that_are_cut_off_are_seen_at_once(cached: Cached) -> None:
    blob = cached.blob("model-1.safetensors")
    whole = blob.stat().st_size
    os.truncate(blob, whole - 2)
    assert cached.broken() == [f"model-1.safetensors has {whole - 2:,} bytes where its header says {whole:,}"]


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 1 << 40), struct.pack("<Q", 3) + b"[1]"])
def test_a_header_that_is_none_is_a_problem_and_no_crash(cached: Cached, content: bytes) -> None:
    cached.blob("model-1.safetensors").write_bytes(content)
    assert cached.broken() == ["model-1.safetensors its header is broken"]


def test_a_link_to_nothing_is_a_problem(cached: Cached) -> None:
    cached.blob("config.json").unlink()
    assert cached.broken() == ["config.json its content is missing"]


def test_a_part_that_the_index_names_must_be_there(cached: Cached) -> None:
    (cached.snapshot / "model-2.safetensors").unlink()
    assert cached.broken() == ["model-2.safetensors is named by the index and is not there"]


def test_half_a_download_is_a_problem_once_it_is_old(cached: Cached) -> None:
    half = cached.folder / "blobs" / "abc.incomplete"
    half.touch()
    assert cached.broken() == []
    os.utime(half, (time.time() - 7200,) * 2)
    assert cached.broken() == ["blobs/abc.incomplete is left over from a download that broke off"]


def test_a_ref_to_no_revision_is_a_problem(cached: Cached) -> None:
    (cached.folder / "refs" / "main").write_text("b" * 40)
    assert cached.broken() == [f"refs/main points at the revision {'b' * 12}, which is not there"]


@pytest.mark.parametrize("name", ["model-2.safetensors", "config.json"])
def test_a_flipped_byte_is_found_by_hashing_alone(cached: Cached, name: str) -> None:
    blob = cached.blob(name)
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cached.broken() == []
    assert cached.hashed() == [name]


def test_files_that_are_not_named_by_a_hash_are_left_alone(cached: Cached) -> None:
    (cached.snapshot / "own.txt").write_text("not a link")
    (cached.folder / "blobs" / "etag-1").write_text("x")
    (cached.snapshot / "odd.txt").symlink_to("../../blobs/etag-1")
    assert cached.broken() == [] and cached.hashed() == []


def test_the_base_model_is_needed(settings, store: Store) -> None:
    assert list(cache.needed(settings, store)) == [settings.base_model]
