"""What vLLM takes of a GPU's memory, and what there is of it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.inference.vllm.adapters import rank_for
from shared import gpus
from shared.settings import Settings

WORKING_BYTES = 3 << 30  # for CUDA's context, its graphs and what a step computes; estimated high


@dataclass(frozen=True)
class Card:
    """The first GPU that this process sees, and how many there are like it; memory in bytes, `free` None if not known."""

    count: int
    capability: tuple[int, int]
    total: int
    free: int | None


def card() -> Card | None:
    """The GPU now, None where there is none. It takes no memory on it, as asking CUDA what is free would."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return None
    told = torch.cuda.get_device_properties(0)
    used = {gpu["uuid"]: gpu["memory_used"] for gpu in gpus.gpus()}.get(f"GPU-{told.uuid}")
    free = None if used is None else told.total_memory - used
    return Card(count, (told.major, told.minor), told.total_memory, free)


class Needs:
    """What serving a checkpoint takes of each GPU, in bytes, with adapters of these ranks."""

    def __init__(self, folder: Path, settings: Settings, ranks: Iterable[int] = (), gpus: int = 1) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.kept, self.rank = settings.kept_adapters, rank_for(ranks)
        self.cache = max(settings.cached_tokens, settings.context_tokens) * bytes_per_token(config) // gpus
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) // gpus
        self.adapter = bytes_per_adapter(config, self.rank) // gpus
        self.least = weights + self.cache + WORKING_BYTES + self.adapter

    def places(self, free: int | None) -> int:
        """How many adapters can be on the GPU at once; the others that are kept wait in the machine's memory."""
        if free is None:
            return self.kept
        return min(self.kept, 1 + max(free - self.least, 0) // self.adapter)

    def bytes(self, free: int | None) -> int:
        """All that is taken."""
        return self.least + (self.places(free) - 1) * self.adapter


def bytes_per_token(config: dict[str, Any]) -> int:
    """Of keys and values in 16 bits, in all layers; those of sliding windows are counted as if they were whole."""
    return 2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]


def bytes_per_adapter(config: dict[str, Any], rank: int) -> int:
    """Of the place for a LoRA in 16 bits on attention and experts."""
    hidden, inter = config["hidden_size"], config["intermediate_size"]
    query, key = (config[heads] * config["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
    attention = 2 * (hidden + query) + 2 * (hidden + key)
    experts = config["num_local_experts"] * (2 * hidden + 3 * inter)
    return 2 * rank * config["num_hidden_layers"] * (attention + experts)
