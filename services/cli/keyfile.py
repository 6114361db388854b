"""Where the API key of this person is kept: ~/.config/tandem/key, or .local/key of the checkout one stands in."""

import os
from pathlib import Path


def home_key() -> Path:
    """The file that `tandem login` writes."""
    return Path.home() / ".config" / "tandem" / "key"


def find() -> str | None:
    """The stored key, or the one that a local stack has put into .local/key here or in a folder above."""
    here = Path.cwd()
    for path in (home_key(), *(folder / ".local" / "key" for folder in (here, *here.parents))):
        if path.is_file() and os.access(path, os.R_OK) and (key := path.read_text().strip()):
            return key
    return None


def store(key: str) -> Path:
    """Write the key so that only its owner can read it, and return where."""
    path = home_key()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)  # a file that was there keeps its mode otherwise
        file.write(key + "\n")
    return path
