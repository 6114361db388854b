"""The tree under the data directory: the only file that builds a path, and how files are written so that they are whole."""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,199}")
_cache: dict[str, tuple[tuple[int, int, int], Any]] = {}


class NotFound(LookupError):
    """What was asked for is not in the data directory; the message names it and says where to look."""


class BadName(ValueError):
    """A name that cannot be used."""


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it can be a folder on every system; raise BadName with the rule otherwise."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise BadName(
            f"{name!r} cannot be a {what}: use 1 to 64 small letters, digits, '.', '_' or '-', "
            "with a letter or digit at both ends."
        )
    return name


def split_reference(reference: str) -> tuple[str, str]:
    """`name@version` -> (name, version); raise BadName if it is not of that form."""
    name, at, version = str(reference).partition("@")
    if not at:
        raise BadName(f"{reference!r} has no version: write it as name@version.")
    return check_name(name), check_name(version, "version")


@dataclass(frozen=True)
class Store:
    """Paths under the data directory `root`. Every method checks the names it is given."""

    root: Path

    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        return self.root.joinpath("runs", check_name(run_id, "run id"))  # one step: lists ask for thousands

    def sweeps(self) -> Path:
        return self.root / "sweeps"

    def sweep(self, sweep_id: str) -> Path:
        return self.sweeps() / check_name(sweep_id, "sweep id")

    def datasets(self) -> Path:
        return self.root / "datasets"

    def dataset(self, reference: str) -> Path:
        name, version = split_reference(reference)
        return self.datasets() / name / version

    def adapters(self) -> Path:
        return self.root / "adapters"

    def adapter(self, reference: str) -> Path:
        name, version = split_reference(reference)
        return self.adapters() / name / version

    def exports(self) -> Path:
        return self.root / "exports"

    def export(self, name: str) -> Path:
        if not _FILE.fullmatch(name) or ".." in name:
            raise BadName(f"{name!r} cannot be the name of an export.")
        return self.exports() / name

    def aliases(self) -> Path:
        return self.root / "aliases"

    def alias(self, alias: str) -> Path:
        return self.aliases() / check_name(alias, "alias")

    def alias_history(self, alias: str) -> Path:
        return self.aliases() / ".history" / f"{check_name(alias, 'alias')}.jsonl"

    def keys(self) -> Path:
        return self.root / "keys"

    def secrets(self) -> Path:
        return self.root / "secrets"

    def workers(self) -> Path:
        return self.root / "workers"

    def chats(self) -> Path:
        return self.root / "chats"

    def chat(self, chat_id: str) -> Path:
        return self.chats() / f"{check_name(chat_id, 'chat id')}.json"

    def history(self) -> Path:
        return self.root / "history.jsonl"

    @contextlib.contextmanager
    def staging(self, beside: Path) -> Iterator[Path]:
        """A new empty folder next to `beside`, on the same file system; removed at the end unless it was renamed away."""
        folder = beside / f".staging-{secrets.token_hex(6)}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step: a reader sees the old file or the new one, and a crash leaves one of them.

    Raises OSError (a full disk, say) with the old file untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """`write_atomic` of `value` as JSON that a person can read."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", mode=mode)


def read_json(path: Path | str) -> Any:
    """The JSON in `path`, parsed again only when the file has changed. Treat it as read only: it is shared."""
    path = os.fspath(path)
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        _cache.pop(path, None)
        raise
    key = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    known = _cache.get(path)
    if known and known[0] == key:
        return known[1]
    with open(path, "rb") as file:
        value = json.load(file)
    _cache[path] = (key, value)
    return value


def publish(staged: Path, target: Path) -> bool:
    """Make the finished folder `staged` appear as `target` by one rename, after every file in it is on the disk.

    Returns False, with `staged` untouched, when `target` is already there."""
    for path in [*staged.rglob("*"), staged]:
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)  # safetensors writes 0600, which other services' users could not read
        _fsync(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return False
    try:
        staged.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    _fsync(target.parent)
    return True


def take_away(store: Store, folder: Path, beside: Path) -> None:
    """Take a published folder or file away in one step: nobody sees half of it. Raises NotFound if somebody was faster."""
    with store.staging(beside) as trash:
        try:
            folder.rename(trash / folder.name)
        except FileNotFoundError:
            raise NotFound(f"{folder.name} is not there any more: it has been deleted already.") from None


def append_line(path: Path, line: str) -> None:
    """Append `line` as one write. A torn last line, left by a crash or a full disk, is cut off first."""
    with open(path, "ab") as file:
        if file.tell() and not _ends_whole(path):
            file.truncate(_whole_length(path))
        file.write(line.encode() + b"\n")


def free_bytes(path: Path) -> int:
    """Bytes that may still be written on the file system of `path`."""
    return shutil.disk_usage(path).free


def _ends_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _whole_length(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read().rfind(b"\n") + 1


def _fsync(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
