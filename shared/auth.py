"""Who may in: one-time sign-in links, API keys stored as hashes, and the secret that signs sessions."""

import contextlib
import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

from shared.schemas import now
from shared.store import BadName, NotFound, Store, read_json, write_atomic, write_json

KEY_PREFIX = "tdm_"
SIGN_IN_HOURS = 24


def session_secret(store: Store) -> bytes:
    """The secret that signs session cookies, made at first use."""
    path = store.secrets() / "session"
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()


def grafana_password(store: Store) -> Path:
    """The file with the password of Grafana's user `admin`, made at first use."""
    path = store.secrets() / "grafana" / "admin-password"
    if not path.exists():
        write_atomic(path, secrets.token_urlsafe(18) + "\n", mode=0o600)
    return path


def new_sign_in(store: Store) -> str:
    """A token that signs one person in, once, within a day."""
    token = secrets.token_urlsafe(24)
    folder = store.secrets() / "sign-in"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > SIGN_IN_HOURS * 3600:
            old.unlink(missing_ok=True)
    (folder / _digest(token)).touch(mode=0o600)
    return token


def use_sign_in(store: Store, token: str) -> bool:
    """True the first time a token is used, False ever after: removing its file succeeds once."""
    path = store.secrets() / "sign-in" / _digest(token)
    try:
        fresh = time.time() - path.stat().st_mtime <= SIGN_IN_HOURS * 3600
        path.unlink()
    except FileNotFoundError:
        return False
    return fresh


def create_key(store: Store, name: str) -> tuple[str, dict[str, Any]]:
    """A new API key, shown this once, and its record; only the key's hash is kept. Raises BadName."""
    if not 1 <= len(name.strip()) <= 80:
        raise BadName("A key needs a name of 1 to 80 characters that says what it is for.")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    record = {"id": secrets.token_hex(4), "name": name.strip(), "created": now(), "hash": _digest(key)}
    write_json(_key_path(store, record["id"]), record, mode=0o600)
    return key, _public(record)


def keys(store: Store) -> list[dict[str, Any]]:
    """The records of all keys, without their hashes, the newest first."""
    found = []
    for path in store.keys().glob("[!.]*.json"):
        used = path.with_suffix(".used")
        record = _public(read_json(path))
        found.append({**record, "last_used": used.stat().st_mtime if used.exists() else None})
    return sorted(found, key=lambda record: record["created"], reverse=True)


def revoke_key(store: Store, key_id: str) -> None:
    """Raises NotFound."""
    path = _key_path(store, key_id)
    if not path.exists():
        raise NotFound(f"There is no key {key_id!r}.")
    path.unlink()
    path.with_suffix(".used").unlink(missing_ok=True)


def check_key(store: Store, key: str) -> dict[str, Any] | None:
    """The record of a valid key, noted as used; None otherwise."""
    if not key.startswith(KEY_PREFIX):
        return None
    digest = _digest(key)
    for path in store.keys().glob("[!.]*.json"):
        try:
            record = read_json(path)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if secrets.compare_digest(record["hash"], digest):
            with contextlib.suppress(OSError):  # a full disk keeps nobody out
                path.with_suffix(".used").touch()
            return _public(record)
    return None


def _key_path(store: Store, key_id: str) -> Path:
    if not key_id.isalnum():
        raise NotFound(f"There is no key {key_id!r}.")
    return store.keys() / f"{key_id}.json"


def _public(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "hash"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
