"""A PEFT LoRA adapter on gpt-oss as the pairs of a llama.cpp LoRA GGUF (read by llama.cpp's `src/llama-adapter.cpp`).

Attention adapters are plain `lora.Linear`. Expert adapters come from `target_parameters`: PEFT nests one
`ParamWrapper` per parameter, the inner one saved under `experts.base_layer`, and which parameter is the inner one
depends on the order in which the module registered them. The key does not say, so the shapes do.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as GGMLType

from services.trainer.gguf_tensors import EXPERTS, PROJECTIONS, Checkpoint, Tensor, encode

_KEY = re.compile(r"layers\.(\d+)\.(?:self_attn\.([qkvo]_proj)|mlp\.experts(?:\.base_layer)*)\.lora_A\.weight$")

Pair = tuple[str, str]


def lora_tensors(adapter_dir: Path, base_config: dict) -> tuple[list[Tensor], float]:
    """(tensors, alpha) of the adapter in `adapter_dir` for the base model with `config.json` = `base_config`.

    The tensors are F32: `NAME.lora_a` [rank, in] or [experts, rank, in], `NAME.lora_b` [out, rank] or
    [experts, out, rank]. llama.cpp adds `alpha / rank * lora_b @ lora_a`. Raises ValueError when the adapter has
    anything that this form cannot hold, or when its shapes do not fit the base model or fit it in two ways.
    """
    adapter = json.loads((adapter_dir / "adapter_config.json").read_text())
    checkpoint = Checkpoint(adapter_dir, "adapter_model")
    attention, experts = _pairs(checkpoint)
    tensors: list[Tensor] = []
    for (layer, projection), pair in attention.items():
        _check_attention(checkpoint, pair, projection, base_config)
        tensors += _pair(f"blk.{layer}.{PROJECTIONS[projection]}", *(_whole(checkpoint, key) for key in pair))
    parameters, swapped = _expert_parameters(checkpoint, experts, base_config)
    _check_targets(adapter, set(parameters.values()))
    for layer, pair in experts:
        tensors += _expert_pair(checkpoint, layer, pair, parameters[pair], swapped, base_config["num_local_experts"])
    return tensors, _alpha(adapter, tensors)


def _pairs(checkpoint: Checkpoint) -> tuple[dict[tuple[int, str], Pair], list[tuple[int, Pair]]]:
    """The adapter's (A, B) keys: attention by (layer, projection), experts as a list of (layer, pair)."""
    attention: dict[tuple[int, str], Pair] = {}
    experts: list[tuple[int, Pair]] = []
    for key in sorted(checkpoint.names()):
        if match := _KEY.search(key):
            layer, projection = int(match[1]), match[2]
            pair = (key, key.replace("lora_A", "lora_B"))
            if projection:
                attention[layer, projection] = pair
            else:
                experts.append((layer, pair))
    known = {key for pair in [*attention.values(), *(pair for _, pair in experts)] for key in pair}
    if odd := known ^ checkpoint.names():
        raise ValueError(f"not LoRA pairs on attention or fused experts: {', '.join(sorted(odd)[:5])}")
    if not known:
        raise ValueError("the adapter has no tensors")
    return attention, experts


def _check_attention(checkpoint: Checkpoint, pair: Pair, projection: str, config: dict) -> None:
    hidden = config["hidden_size"]
    heads = config["num_key_value_heads" if projection in ("k_proj", "v_proj") else "num_attention_heads"]
    width = heads * config["head_dim"]
    expected = (width, hidden) if projection == "o_proj" else (hidden, width)
    (rank, width_in), (width_out, rank_b) = (checkpoint.shape(key) for key in pair)
    if rank != rank_b or (width_in, width_out) != expected:
        raise ValueError(f"{pair[0]} maps {width_in} to {width_out}; the base model's {projection} maps {expected}")


def _expert_parameters(
    checkpoint: Checkpoint, experts: list[tuple[int, Pair]], config: dict
) -> tuple[dict[Pair, str], bool]:
    """Which parameter each pair adapts, and whether PEFT swapped the parameter's axes.

    PEFT's `ParamWrapper` takes a parameter [experts, in, out] as it is when the module says `is_transposed` (gpt-oss
    in transformers 5) and swaps `in` and `out` when it does not (gpt-oss in transformers 4 with a recent PEFT).
    """
    hidden, inter = config["hidden_size"], config["intermediate_size"]
    readings = []
    for swapped in (False, True):
        widths = {(hidden, 2 * inter): "gate_up_proj", (inter, hidden): "down_proj"}
        if swapped:
            widths = {(out, into): name for (into, out), name in widths.items()}
        parameters = {pair: widths.get(_widths(checkpoint, pair)) for _, pair in experts}
        places = {(layer, parameters[pair]) for layer, pair in experts}
        if None not in parameters.values() and len(places) == len(experts):
            readings.append((parameters, swapped))
    if not experts:
        return {}, False
    if len(readings) != 1:
        seen = sorted({_widths(checkpoint, pair) for _, pair in experts})
        reason = "fit in two ways" if readings else "do not fit"
        raise ValueError(f"expert adapters of (in, out) {seen} {reason} with hidden {hidden}, intermediate {inter}")
    return readings[0]


def _widths(checkpoint: Checkpoint, pair: Pair) -> tuple[int, int]:
    """(in, out) of a pair A [experts * rank, in], B [out, experts * rank]."""
    return checkpoint.shape(pair[0])[1], checkpoint.shape(pair[1])[0]


def _check_targets(adapter: dict, found: set[str]) -> None:
    declared = {name.rpartition(".")[2] for name in adapter.get("target_parameters") or []}
    if found != declared:
        raise ValueError(f"adapter_config.json targets {sorted(declared)}, the weights hold {sorted(found)}")


def _expert_pair(
    checkpoint: Checkpoint, layer: int, pair: Pair, parameter: str, swapped: bool, experts: int
) -> Iterator[Tensor]:
    """PEFT stacks A by expert and B by rank (`ParamWrapper.get_delta_weight`); GGUF has both by expert."""
    stacked_a, stacked_b = (_whole(checkpoint, key) for key in pair)
    if len(stacked_a) % experts or len(stacked_a) != stacked_b.shape[1]:
        raise ValueError(f"{pair[0]}: A {stacked_a.shape} and B {stacked_b.shape} do not stack {experts} experts")
    a = stacked_a.reshape(experts, -1, stacked_a.shape[1])
    b = stacked_b.reshape(len(stacked_b), -1, experts).permute(2, 0, 1)
    if swapped:
        a, b = b.transpose(1, 2), a.transpose(1, 2)
    for part, rows in EXPERTS[parameter].items():
        yield from _pair(f"blk.{layer}.{part}", a, b[:, rows])


def _pair(name: str, a: torch.Tensor, b: torch.Tensor) -> Iterator[Tensor]:
    for side, matrix in (("lora_a", a), ("lora_b", b)):
        full = f"{name}.weight.{side}"

        def chunks(full: str = full, matrix: torch.Tensor = matrix) -> Iterator[np.ndarray]:
            yield encode(full, matrix, GGMLType.F32)

        yield Tensor(full, tuple(matrix.shape), GGMLType.F32, GGMLType.F32, chunks)


def _whole(checkpoint: Checkpoint, key: str) -> torch.Tensor:
    return checkpoint.rows(key, 0, checkpoint.shape(key)[0])


def _alpha(adapter: dict, tensors: list[Tensor]) -> float:
    """The one alpha that makes llama.cpp's alpha / rank equal to PEFT's scaling of every pair."""
    if adapter.get("alpha_pattern"):
        raise ValueError("a GGUF adapter has one alpha; alpha_pattern has several")
    if not adapter.get("use_rslora"):
        return float(adapter["lora_alpha"])
    ranks = {tensor.shape[-1] for tensor in tensors if tensor.name.endswith(".lora_b")}
    if len(ranks) > 1:
        raise ValueError(f"use_rslora with ranks {sorted(ranks)} has no single alpha")
    return adapter["lora_alpha"] * math.sqrt(ranks.pop())
