"""Which adapters vLLM applies as a whole: it leaves out what it does not know without a word."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from services.inference.engine import Unfit, Weights

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for
LEAST_RANK = 16  # of the recipe `standard`; each doubling doubles the memory of every adapter's place
ATTENTION = re.compile(r"\.layers\.\d+\.self_attn\.[qkvo]_proj\.lora_[AB]\.weight$")
EXPERTS = re.compile(r"(.*\.layers\.\d+\.mlp\.experts)\.(?:base_layer\.)?lora_[AB]\.weight$")
UNREAD = ("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save")  # of adapter_config.json


def rank_for(ranks: Iterable[int]) -> int:
    """The rank to make room for, where adapters of these are known."""
    most = max(ranks, default=LEAST_RANK)
    return next((rank for rank in RANKS if rank >= max(most, LEAST_RANK)), RANKS[-1])


def check(weights: Weights) -> int:
    """The adapter's rank. Raises Unfit for one of which vLLM would leave a part out."""
    folder = Path(str(weights.adapter))
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no dict
        reason, rank = _left_out(config, shapes), int(config["r"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Unfit(f"The adapter {weights.name} cannot be read: {error}") from error
    if rank > RANKS[-1]:
        reason = f"its rank is {rank}, and vLLM goes up to {RANKS[-1]}"
    if reason:
        raise Unfit(
            f"vLLM would not apply all of the adapter {weights.name}: {reason}. Set TANDEM_ENGINE=unsloth, or serve an "
            "export of it."
        )
    return rank


def _left_out(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> str | None:
    """What vLLM does not apply, or not as PEFT does; None if it applies all."""
    if odd := [key for key in UNREAD if config.get(key)]:
        return f"its {odd[0]} is not read"
    if lost := [name for name in shapes if not ATTENTION.search(name) and not EXPERTS.search(name)]:
        return f"{len(lost)} of its {len(shapes)} tensors have no place there, as {lost[0]}"
    for layer in {match[1] for name in shapes if (match := EXPERTS.search(name))}:
        if not _in_place(layer, shapes):
            return (
                f"{layer} is to have gate_up_proj and down_proj, in this order, as PEFT writes them over transformers 5"
            )
    return None


def _in_place(layer: str, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a layer's experts are adapted as vLLM reads them: PEFT nests the second parameter around the first, and
    vLLM takes the inner one for gate_up_proj [hidden to twice the intermediate size], the outer one for down_proj."""
    try:
        (hidden, twice), (intermediate, out) = (
            (shapes[f"{layer}.{inner}lora_A.weight"][1], shapes[f"{layer}.{inner}lora_B.weight"][0])
            for inner in ("base_layer.", "")
        )
    except KeyError:
        return False
    return twice == 2 * intermediate and out == hidden
