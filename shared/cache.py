"""The Hugging Face cache as it lies on the disk: which repositories are in it, and which of their files are broken.

Read without the hub's own scan, which gives a repository up at its first broken file."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared import registry, runs
from shared.settings import Settings
from shared.store import Store, read_json

FOLDER = re.compile(r"(model|dataset)s--(.+)")
LEFT_OVER = 3600  # seconds after which an unfinished download is no longer one that goes on
GIT, SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Broken:
    """A file that cannot be used. `commit` is None for one that belongs to no revision, as half a download does."""

    commit: str | None
    file: str
    problem: str


@dataclass(frozen=True)
class Revision:
    """A snapshot: one commit of a repository, and the refs (`main`) that name it."""

    commit: str
    refs: list[str]
    files: int
    bytes: int


@dataclass(frozen=True)
class Repository:
    """A repository in the cache. `last_used` is when a file of it was last read, in Unix seconds, as far as the disk notes it."""

    repository: str
    type: Literal["model", "dataset"]
    folder: Path
    bytes: int
    last_used: float
    revisions: list[Revision]
    broken: list[Broken] = field(default_factory=list)


def folder_of(hf_home: Path, repository: str, type_: str) -> Path:
    """Where the cache keeps a repository, whether it is there or not."""
    return hf_home / "hub" / f"{type_}s--{repository.replace('/', '--')}"


def repositories(hf_home: Path) -> list[Repository]:
    """All that is in the cache, quickly checked, by name."""
    folders = sorted(path for path in (hf_home / "hub").glob("*--*") if path.is_dir())
    return [read(folder) for folder in folders if FOLDER.fullmatch(folder.name)]


def read(folder: Path) -> Repository:
    """One repository of the cache, quickly checked."""
    found = FOLDER.fullmatch(folder.name)
    assert found, folder
    stats = [path.stat() for path in (folder / "blobs").glob("*") if path.is_file()]
    refs = _refs(folder)
    revisions = [_revision(path, refs) for path in sorted(folder.glob("snapshots/*")) if path.is_dir()]
    broken = [*_unfinished(folder, time.time()), *_dangling(refs, revisions)]
    for revision in revisions:
        broken += quick(folder / "snapshots" / revision.commit)
    size = sum(stat.st_size for stat in stats) or sum(revision.bytes for revision in revisions)
    used = max((max(stat.st_atime, stat.st_mtime) for stat in stats), default=folder.stat().st_mtime)
    return Repository(found[2].replace("--", "/"), found[1], folder, size, used, revisions, broken)  # type: ignore[arg-type]


def quick(snapshot: Path) -> Iterator[Broken]:
    """What can be seen without reading whole files: links to nothing, weights cut off, missing parts of an index."""
    for path in files(snapshot):
        name = path.relative_to(snapshot).as_posix()
        if not path.exists():
            yield Broken(snapshot.name, name, "its content is missing")
        elif path.suffix == ".safetensors" and (problem := _cut_off(path)):
            yield Broken(snapshot.name, name, problem)
        elif path.name.endswith(".safetensors.index.json"):
            yield from _missing_parts(path, snapshot)


def thorough(snapshot: Path, step: Callable[[str], None]) -> Iterator[Broken]:
    """Hash every file whose name in the cache is the hash of its content: git's for small files, SHA-256 for large ones.

    `step` is called with the name of each file before it is read."""
    for path in files(snapshot):
        name = path.relative_to(snapshot).as_posix()
        step(name)
        if path.is_symlink() and path.exists() and not _as_named(path.resolve()):
            yield Broken(snapshot.name, name, "its content is not what it was when it was fetched")


def files(snapshot: Path) -> list[Path]:
    """The files of a snapshot, links to nothing among them."""
    return sorted(path for path in snapshot.rglob("*") if path.is_symlink() or path.is_file())


def needed(settings: Settings, store: Store) -> dict[str, str]:
    """The models that must not be removed, and what needs each, in words."""
    found = {settings.base_model: "it is this Tandem's base model (TANDEM_BASE_MODEL)"}
    for card in registry.adapters(store):
        found.setdefault(card.base_model, f"it is the base of the adapter {card.reference}")
    for run_id, _ in runs.in_state(store, "queued", "running"):
        recipe = read_json(store.run(run_id) / "spec.json").get("recipe") or {}
        found.setdefault(recipe.get("base_model", ""), f"the run {run_id} trains on it")
    return found


def _refs(folder: Path) -> dict[str, str]:
    """Each ref, such as `main`, and its commit."""
    paths = [path for path in (folder / "refs").rglob("[!.]*") if path.is_file()]
    return {path.relative_to(folder / "refs").as_posix(): path.read_text().strip() for path in paths}


def _revision(snapshot: Path, refs: dict[str, str]) -> Revision:
    names = sorted(ref for ref, commit in refs.items() if commit == snapshot.name)
    found = [path for path in files(snapshot) if path.exists()]
    return Revision(snapshot.name, names, len(found), sum(path.stat().st_size for path in found))


def _unfinished(folder: Path, now: float) -> Iterator[Broken]:
    for path in sorted(folder.glob("blobs/*.incomplete")):
        if now - path.stat().st_mtime > LEFT_OVER:
            yield Broken(None, path.relative_to(folder).as_posix(), "is left over from a download that broke off")


def _dangling(refs: dict[str, str], revisions: list[Revision]) -> Iterator[Broken]:
    known = {revision.commit for revision in revisions}
    for ref, commit in refs.items():
        if commit not in known:
            yield Broken(commit, f"refs/{ref}", f"points at the revision {commit[:12]}, which is not there")


def _cut_off(path: Path) -> str | None:
    """What is wrong with the size of a safetensors file: its header says where the last tensor ends.

    Format: https://huggingface.co/docs/safetensors#format"""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            return "its header is broken"
        try:
            header = json.loads(file.read(length))
            end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            return "its header is broken"
    whole = 8 + length + end
    return f"has {size:,} bytes where its header says {whole:,}" if size != whole else None


def _missing_parts(index: Path, snapshot: Path) -> Iterator[Broken]:
    try:
        parts = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        yield Broken(snapshot.name, index.relative_to(snapshot).as_posix(), "cannot be read as an index of weights")
        return
    for part in parts:
        path = index.parent / part
        if not path.is_symlink() and not path.exists():
            yield Broken(snapshot.name, path.relative_to(snapshot).as_posix(), "is named by the index and is not there")


def _as_named(blob: Path) -> bool:
    """Whether a blob's content has the hash that it is named by; true for a name that is no hash."""
    if SHA256.fullmatch(blob.name):
        return registry.sha256(blob) == blob.name
    if GIT.fullmatch(blob.name):
        digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(blob), usedforsecurity=False)
        with open(blob, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == blob.name
    return True
