"""A PEFT LoRA adapter on gpt-oss as the pairs of a llama.cpp LoRA GGUF (read by llama.cpp's `src/llama-adapter.cpp`)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as GGMLType

from services.trainer.gguf_tensors import EXPERTS, LAYER, Tensor, encode
from services.trainer.lora import Pair, read_pairs


def lora_tensors(adapter_dir: Path, base_config: dict) -> tuple[list[Tensor], float]:
    """(tensors, alpha) of the adapter in `adapter_dir` for the base model with `config.json` = `base_config`.

    The tensors are F32: `NAME.lora_a` [rank, in] or [experts, rank, in], `NAME.lora_b` [out, rank] or
    [experts, out, rank]. llama.cpp adds `alpha / rank * lora_b @ lora_a`. Raises what `read_pairs` raises, and
    ValueError when one alpha cannot stand for the scaling of every pair.
    """
    pairs = read_pairs(adapter_dir, base_config)
    tensors: list[Tensor] = []
    for name, pair in pairs.items():
        tensors += _experts(name, pair) if ".experts." in name else _plain(name, pair)
    alphas = {round(pair.scale * pair.a.shape[-2], 9) for pair in pairs.values()}
    if len(alphas) > 1:
        raise ValueError(f"a GGUF adapter has one alpha, and this one would need {sorted(alphas)}")
    return tensors, alphas.pop()


def _plain(name: str, pair: Pair) -> Iterator[Tensor]:
    _, _, layer, module = name.split(".", 3)
    yield from _pair(f"blk.{layer}.{LAYER[module].removesuffix('.weight')}", pair.a, pair.b)


def _experts(name: str, pair: Pair) -> Iterator[Tensor]:
    _, _, layer, _, _, parameter = name.split(".")
    for part, rows in EXPERTS[parameter].items():
        yield from _pair(f"blk.{layer}.{part}", pair.a, pair.b[:, rows])


def _pair(name: str, a: torch.Tensor, b: torch.Tensor) -> Iterator[Tensor]:
    for side, matrix in (("lora_a", a), ("lora_b", b)):
        full = f"{name}.weight.{side}"

        def chunks(full: str = full, matrix: torch.Tensor = matrix) -> Iterator[np.ndarray]:
            yield encode(full, matrix, GGMLType.F32)

        yield Tensor(full, tuple(matrix.shape), GGMLType.F32, GGMLType.F32, chunks)
