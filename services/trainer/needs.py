"""What an export needs of the disk and of memory, asked before an hour is spent on it."""

import json
import math
import shutil
from pathlib import Path

import psutil

from services.trainer import exits
from services.trainer.child import Context, Refused
from services.trainer.gguf_lora import lora_tensors
from services.trainer.gguf_tensors import model_tensors
from services.trainer.merged import SHARD_BYTES, Merged

SPARE_DISK = 64 << 20  # the tokenizer, the cards
# Pieces of one tensor in float32 and as they are written; llama.cpp's buffers. The file itself it maps.
WORKING_MEMORY, LEAST_MEMORY = 2 << 30, 512 << 20


def check(context: Context, view: Merged, base: Path, adapter: Path, encoding: str) -> None:
    """Raises Refused if the disk cannot hold the export and what it is compared on, or if memory is too small to write it."""
    disk = disk_bytes(view, json.loads((base / "config.json").read_text()), adapter, encoding)
    free = shutil.disk_usage(context.store.root).free
    if free < disk:
        raise Refused(
            f"The export needs about {disk / 1e9:.1f} GB under {context.store.root} and {free / 1e9:.1f} GB are free. "
            "Delete exports or checkpoints that are not needed, then resume the run."
        )
    memory = memory_bytes(view, encoding)
    available = min(psutil.virtual_memory().available, exits.memory_limit() or exits.NO_LIMIT)
    if available < memory:
        raise Refused(
            f"The export needs about {memory / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are available. "
            "Stop what else runs here, or give the trainer more, then resume the run."
        )


def disk_bytes(view: Merged, config: dict, adapter: Path, encoding: str) -> int:
    """Bytes that the export takes while it is made; a LoRA is compared on its base, which is written for that."""
    if encoding == "merged":
        return weight_bytes(view) + SPARE_DISK
    if encoding == "LoRA":
        tensors = [*lora_tensors(adapter, config)[0], *model_tensors(view.base, config, exact_encoding(view))]
    else:
        tensors = model_tensors(view, config, encoding)
    return sum(tensor.nbytes for tensor in tensors) + SPARE_DISK


def memory_bytes(view: Merged, encoding: str) -> int:
    """Bytes of memory that writing and comparing take at most: the adapter as it is and as it is read, in float32; merged
    weights by the shard, while it is put together and while it is written."""
    adapter = 8 * sum(pair.a.numel() + pair.b.numel() for pair in view.pairs.values())
    shards = 2 * min(SHARD_BYTES, weight_bytes(view)) if encoding == "merged" else 0
    return min(WORKING_MEMORY, LEAST_MEMORY + weight_bytes(view)) + adapter + shards


def weight_bytes(view: Merged) -> int:
    """Bytes of all weights in 16 bits."""
    return 2 * sum(math.prod(view.shape(name)) for name in view.names())


def exact_encoding(view: Merged) -> str:
    """The encoding that leaves the base's experts as they are: native ones in MXFP4, 16-bit ones in F16."""
    return "MXFP4" if any(name.endswith("_blocks") for name in view.base.names()) else "F16"
