"""A PEFT LoRA adapter on gpt-oss, by the name of the base tensor that each pair of matrices changes.

Attention adapters are plain `lora.Linear`, and a router's has the same layout. Expert adapters come from
`target_parameters`: PEFT nests one `ParamWrapper` per parameter, the inner one saved under `experts.base_layer`, and
which parameter is the inner one depends on the order in which the module registered them. The key does not say, so the
shapes do.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from services.trainer.gguf_tensors import Checkpoint

_KEY = re.compile(
    r"layers\.(\d+)\.(?:(self_attn\.[qkvo]_proj|mlp\.router)|mlp\.experts(?:\.base_layer)*)\.lora_A\.weight$"
)

ROUTER = "mlp.router"
Keys = tuple[str, str]


@dataclass(frozen=True)
class Pair:
    """A [rank, in] and B [out, rank], or both with the experts in front; the base tensor's delta is `scale * B @ A`."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


def read_pairs(adapter_dir: Path, base_config: dict) -> dict[str, Pair]:
    """The pairs of the adapter in `adapter_dir` for the base model with `config.json` = `base_config`, by the base's names:
    `model.layers.0.self_attn.q_proj.weight` [out, in], `model.layers.0.mlp.router.weight` [experts, in],
    `model.layers.0.mlp.experts.gate_up_proj` [experts, in, out].

    Raises ValueError when the adapter has anything else, or when its shapes do not fit the base or fit it in two ways.
    """
    adapter = json.loads((adapter_dir / "adapter_config.json").read_text())
    _check_layout(adapter)
    checkpoint = Checkpoint(adapter_dir, "adapter_model")
    plain, experts = _pairs(checkpoint)
    found: dict[str, Pair] = {}
    for (layer, module), keys in plain.items():
        _check_plain(checkpoint, keys, module, base_config)
        a, b = (_whole(checkpoint, key) for key in keys)
        found[f"model.layers.{layer}.{module}.weight"] = Pair(a, b, _scale(adapter, len(a)))
    parameters, swapped = _expert_parameters(checkpoint, experts, base_config)
    routers = {"router.weight"} if any(module == ROUTER for _, module in plain) else set()
    _check_targets(adapter, set(parameters.values()), routers)
    for layer, keys in experts:
        a, b = _by_expert(checkpoint, keys, swapped, base_config["num_local_experts"])
        name = f"model.layers.{layer}.mlp.experts.{parameters[keys]}"
        found[name] = Pair(a, b, _scale(adapter, a.shape[1]))
    return found


def _check_layout(adapter: dict) -> None:
    """Raises ValueError for experts' B packed otherwise than PEFT reads it, as Unsloth did before September 2026 and still
    says in the config (https://github.com/unslothai/unsloth/issues/6930): it would load, and be another adapter."""
    layouts = {
        p.get("lora_B_layout") for p in adapter.get("unsloth_fused_expert_lora", {}).get("parameters", {}).values()
    }
    if odd := (layouts | {adapter.get("lora_B_layout")}) - {None, "rank_major"}:
        raise ValueError(f"the experts' lora_B is packed {odd.pop()!r}; only PEFT's own order, 'rank_major', is read")


def _scale(adapter: dict, rank: int) -> float:
    """PEFT's scaling. Raises ValueError for alpha_pattern, by which every pair could have its own alpha."""
    if adapter.get("alpha_pattern"):
        raise ValueError("this adapter has an alpha_pattern, several alphas; one alpha is read")
    return adapter["lora_alpha"] / (math.sqrt(rank) if adapter.get("use_rslora") else rank)


def _pairs(checkpoint: Checkpoint) -> tuple[dict[tuple[int, str], Keys], list[tuple[int, Keys]]]:
    """The adapter's (A, B) keys: attention and routers by (layer, module), experts as a list of (layer, pair)."""
    plain: dict[tuple[int, str], Keys] = {}
    experts: list[tuple[int, Keys]] = []
    for key in sorted(checkpoint.names()):
        if match := _KEY.search(key):
            layer, module = int(match[1]), match[2]
            pair = (key, key.replace("lora_A", "lora_B"))
            if module:
                plain[layer, module] = pair
            else:
                experts.append((layer, pair))
    known = {key for pair in [*plain.values(), *(pair for _, pair in experts)] for key in pair}
    if odd := known ^ checkpoint.names():
        raise ValueError(f"not LoRA pairs on attention, routers or fused experts: {', '.join(sorted(odd)[:5])}")
    if not known:
        raise ValueError("the adapter has no tensors")
    return plain, experts


def _check_plain(checkpoint: Checkpoint, pair: Keys, module: str, config: dict) -> None:
    hidden, projection = config["hidden_size"], module.rpartition(".")[2]
    heads = config["num_key_value_heads" if projection in ("k_proj", "v_proj") else "num_attention_heads"]
    width = config["num_local_experts"] if module == ROUTER else heads * config["head_dim"]
    expected = (width, hidden) if projection == "o_proj" else (hidden, width)
    (rank, width_in), (width_out, rank_b) = (checkpoint.shape(key) for key in pair)
    if rank != rank_b or (width_in, width_out) != expected:
        raise ValueError(f"{pair[0]} maps {width_in} to {width_out}; the base model's {projection} maps {expected}")


def _expert_parameters(
    checkpoint: Checkpoint, experts: list[tuple[int, Keys]], config: dict
) -> tuple[dict[Keys, str], bool]:
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


def _widths(checkpoint: Checkpoint, pair: Keys) -> tuple[int, int]:
    """(in, out) of a pair A [experts * rank, in], B [out, experts * rank]."""
    return checkpoint.shape(pair[0])[1], checkpoint.shape(pair[1])[0]


def _check_targets(adapter: dict, experts: set[str], routers: set[str]) -> None:
    declared = {name.removeprefix("mlp.").removeprefix("experts.") for name in adapter.get("target_parameters") or []}
    if (found := experts | routers) != declared:
        raise ValueError(f"adapter_config.json targets {sorted(declared)}, the weights hold {sorted(found)}")


def _by_expert(checkpoint: Checkpoint, keys: Keys, swapped: bool, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A [experts, rank, in] and B [experts, out, rank]. PEFT stacks A by expert and B by rank
    (`ParamWrapper.get_delta_weight`)."""
    stacked_a, stacked_b = (_whole(checkpoint, key) for key in keys)
    if len(stacked_a) % experts or len(stacked_a) != stacked_b.shape[1]:
        raise ValueError(f"{keys[0]}: A {stacked_a.shape} and B {stacked_b.shape} do not stack {experts} experts")
    a = stacked_a.reshape(experts, -1, stacked_a.shape[1])
    b = stacked_b.reshape(len(stacked_b), -1, experts).permute(2, 0, 1)
    return (b.transpose(1, 2), a.transpose(1, 2)) if swapped else (a, b)


def _whole(checkpoint: Checkpoint, key: str) -> torch.Tensor:
    return checkpoint.rows(key, 0, checkpoint.shape(key)[0])
