"""Where the Hugging Face cache keeps a repository, without a network."""

import hashlib
import json
import math
from functools import lru_cache
from pathlib import Path

from shared.store import NotFound


def snapshot(repository: str, revision: str, hf_home: Path) -> Path:
    """The folder of a model in the cache; its name is the commit. Raises NotFound that says how to fetch it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, cache_dir=hf_home / "hub", local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, FileNotFoundError):
        raise NotFound(
            f"{repository} ({revision}) is not in the Hugging Face cache {hf_home}. "
            f"Fetch it first: tandem fetch {repository}"
        ) from None


def commit(folder: Path) -> str:
    """The commit of a snapshot folder."""
    return folder.name


def weights_sha256(folder: Path) -> str:
    """One hash for all weight files of a snapshot. The cache names each file by its own SHA-256, so none is read."""
    names = [path.resolve().name for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


@lru_cache(maxsize=4)
def parameters(folder: Path) -> tuple[int, int]:
    """How many parameters a snapshot has, and how many of them are the experts' weights. Only the headers are read;
    format: https://huggingface.co/docs/safetensors. MXFP4 comes as blocks, two values a byte, with scales beside them."""
    total = experts = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__" and not name.endswith("_scales"):
                count = math.prod(tensor["shape"]) * (2 if name.endswith("_blocks") else 1)
                total += count
                experts += count if ".experts." in name and not name.endswith("_bias") else 0
    return total, experts


@lru_cache(maxsize=2)
def encoder(folder: Path):  # noqa: ANN201  # the type would import tokenizers with this module
    """The encoder of a snapshot, loaded once for each process (about a second)."""
    from shared.harmony import Encoder

    return Encoder(folder)
