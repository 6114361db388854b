"""The tensors of a gpt-oss checkpoint under llama.cpp's names, encoded a piece at a time: 20B pass in little memory.

Names and layouts follow llama.cpp's `conversion/gpt_oss.py` (writer) and `src/models/openai-moe.cpp` (reader).
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GGMLType
from safetensors import safe_open

from services.trainer import ggml
from services.trainer.gguf_types import Mixture

CHUNK_ELEMENTS = 2**24

TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PROJECTIONS = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router.weight": "ffn_gate_inp.weight",
    "mlp.router.bias": "ffn_gate_inp.bias",
}
for _theirs, _ours in PROJECTIONS.items():
    LAYER |= {f"self_attn.{_theirs}.{kind}": f"{_ours}.{kind}" for kind in ("weight", "bias")}

# gate_up_proj interleaves its outputs: even rows are the gate, odd rows are up.
EXPERTS = {
    "gate_up_proj": {"ffn_gate_exps": slice(0, None, 2), "ffn_up_exps": slice(1, None, 2)},
    "down_proj": {"ffn_down_exps": slice(None)},
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF file.

    `shape` is in numpy's order (a row, the axis that is quantised, comes last). `chunks()` yields the encoded
    bytes from the first row to the last. `asked` is the type that the encoding calls for; it differs from `type`
    where the rows do not divide into blocks.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    asked: GGMLType
    chunks: Callable[[], Iterator[np.ndarray]]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(gguf.quant_shape_to_byte_shape(self.shape, self.type))


class Weights(Protocol):
    """Named tensors that are read by slices of their first axis."""

    def names(self) -> set[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor: ...


class Checkpoint:
    """The safetensors files of a directory, single or sharded with an index, read by slices of the first axis."""

    def __init__(self, directory: Path, stem: str = "model") -> None:
        """Raises FileNotFoundError when the directory has neither `STEM.safetensors` nor its index."""
        index = directory / f"{stem}.safetensors.index.json"
        single = directory / f"{stem}.safetensors"
        names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {single.name}
        self._files: dict[str, Any] = {}
        for name in sorted(names):
            file = safe_open(directory / name, framework="pt")
            self._files |= dict.fromkeys(file.keys(), file)

    def names(self) -> set[str]:
        return set(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ValueError when the checkpoint lacks the tensor."""
        if name not in self._files:
            raise ValueError(f"the checkpoint has no tensor {name}")
        return tuple(self._files[name].get_slice(name).get_shape())

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements `start:stop` of the first axis, the other axes whole, in the stored type."""
        return self._files[name].get_slice(name)[start:stop]


def model_tensors(checkpoint: Weights, config: dict, encoding: str) -> list[Tensor]:
    """Every tensor of the GGUF, in the order of the layers.

    `config` is the checkpoint's `config.json`; `encoding` is one of FILE_TYPES. Raises ValueError when a tensor is
    missing or when the checkpoint has one that this architecture does not know (nothing is left out in silence).
    """
    mixture = Mixture(encoding, config["num_hidden_layers"])
    used: set[str] = set()
    tensors: list[Tensor] = []
    tied = config.get("tie_word_embeddings") and "lm_head.weight" not in checkpoint.names()
    for theirs, ours in TOP.items():
        # llama.cpp wants an output matrix of its own for this architecture
        source = "model.embed_tokens.weight" if tied and theirs == "lm_head.weight" else theirs
        tensors.append(_plain(checkpoint, source, ours, mixture))
        used.add(source)
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in LAYER.items():
            source = f"model.layers.{layer}.{theirs}"
            tensors.append(_plain(checkpoint, source, f"blk.{layer}.{ours}", mixture))
            used.add(source)
        for parameter in EXPERTS:
            source = f"model.layers.{layer}.mlp.experts.{parameter}"
            native = f"{source}_blocks" in checkpoint.names()
            used |= {f"{source}_bias"} | ({f"{source}_blocks", f"{source}_scales"} if native else {source})
            tensors += _experts(checkpoint, source, layer, mixture, native)
    if unknown := checkpoint.names() - used:
        raise ValueError(f"{len(unknown)} tensors have no place in gpt-oss: {', '.join(sorted(unknown)[:5])}")
    return tensors


def _plain(checkpoint: Weights, source: str, name: str, mixture: Mixture) -> Tensor:
    """A tensor whose layout is the same on both sides: a matrix [out, in] or a vector."""
    shape = checkpoint.shape(source)
    kind, asked = mixture.types(name, shape[-1])
    step = max(1, CHUNK_ELEMENTS // math.prod(shape[1:]))

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, shape[0], step):
            yield encode(name, checkpoint.rows(source, start, start + step), kind)

    return Tensor(name, shape, kind, asked, chunks)


def _experts(checkpoint: Weights, source: str, layer: int, mixture: Mixture, native: bool) -> Iterator[Tensor]:
    """Weights and biases of one fused expert parameter; gate_up_proj becomes two of each."""
    for part, rows in EXPERTS[source.rpartition(".")[2]].items():
        name = f"blk.{layer}.{part}"
        weight = _native_weight if native else _dense_weight
        yield weight(checkpoint, source, f"{name}.weight", rows, mixture)
        yield _expert_bias(checkpoint, f"{source}_bias", f"{name}.bias", rows)


def _expert_bias(checkpoint: Weights, source: str, name: str, rows: slice) -> Tensor:
    experts, width = checkpoint.shape(source)
    shape = (experts, len(range(width)[rows]))

    def chunks() -> Iterator[np.ndarray]:
        yield encode(name, checkpoint.rows(source, 0, experts)[:, rows], GGMLType.F32)

    return Tensor(name, shape, GGMLType.F32, GGMLType.F32, chunks)


def _dense_weight(checkpoint: Weights, source: str, name: str, rows: slice, mixture: Mixture) -> Tensor:
    """[experts, in, out] in the checkpoint, [experts, out, in] in the file; one expert in memory."""
    experts, width, out = checkpoint.shape(source)
    kind, asked = mixture.types(name, width)

    def chunks() -> Iterator[np.ndarray]:
        for expert in range(experts):
            yield encode(name, checkpoint.rows(source, expert, expert + 1)[0].T[rows], kind)

    return Tensor(name, (experts, len(range(out)[rows]), width), kind, asked, chunks)


def _native_weight(checkpoint: Weights, source: str, name: str, rows: slice, mixture: Mixture) -> Tensor:
    """`_blocks` [experts, out, in / 32, 16], `_scales` [experts, out, in / 32]: repacked, or decoded for the others."""
    experts, out, blocks, _ = checkpoint.shape(f"{source}_blocks")
    kind, asked = mixture.types(name, blocks * 32)

    def chunks() -> Iterator[np.ndarray]:
        for expert in range(experts):
            codes = checkpoint.rows(f"{source}_blocks", expert, expert + 1)[0, rows]
            scales = checkpoint.rows(f"{source}_scales", expert, expert + 1)[0, rows]
            packed = repack_mxfp4(codes, scales)
            if kind is not GGMLType.MXFP4:
                packed = encode(name, torch.from_numpy(gguf.dequantize(packed, GGMLType.MXFP4)), kind)
            yield packed

    return Tensor(name, (experts, len(range(out)[rows]), blocks * 32), kind, asked, chunks)


def encode(name: str, rows: torch.Tensor, kind: GGMLType) -> np.ndarray:
    """The bytes of `rows` [..., width] as GGML type `kind`.

    Raises ValueError when a value is not finite or does not fit (F16 ends at 65,504).
    """
    rows = rows.to(torch.float16 if kind is GGMLType.F16 else torch.float32).contiguous()
    if not torch.isfinite(rows).all():
        raise ValueError(f"{name} has values that are not finite as {kind.name}")
    if kind is GGMLType.MXFP4:
        return quantize_mxfp4(rows)
    values = rows.cpu().numpy()
    return values if kind in (GGMLType.F16, GGMLType.F32) else ggml.quantize(values, kind)


def repack_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    """OpenAI's MXFP4 as GGML's, no value changed: [out, n, 16] and [out, n], uint8, to [out, n * 17].

    In OpenAI's blocks byte j holds elements 2j (low nibble) and 2j + 1 (`transformers/integrations/mxfp4.py`); in
    GGML's `block_mxfp4` it holds j and j + 16, after the e8m0 scale (`ggml-common.h`).
    """
    codes = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2)
    return _mxfp4_blocks(codes, scales.unsqueeze(-1)).flatten(-2).numpy()


def quantize_mxfp4(rows: torch.Tensor) -> np.ndarray:
    """Nearest MXFP4 of `rows` [n, width], float32, width a multiple of 32: uint8 [n, width / 32 * 17].

    OCP Microscaling 1.0: per block of 32 a scale 2^(e - 127) and e2m1 codes for 0, 0.5, 1, 1.5, 2, 3, 4, 6.
    `quantize_row_mxfp4_ref` in `ggml-quants.c` lets a block reach 8 scales and cuts it down to 6; here a block
    above 7 takes the next scale, where its maximum rounds to 8 (rms error on normal weights 0.112, not 0.116).
    """
    blocks = rows.reshape(-1, 32)
    top = blocks.abs().amax(1, keepdim=True)
    exponents = torch.where(top > 0, torch.frexp(top / 7).exponent + 127, 0).clamp_(0, 254)
    scaled = blocks.abs().mul_(torch.exp2(127.0 - exponents))
    # the code of a magnitude is the least of three lines, one for each step of the format (0.5, 1 and 2)
    lines = torch.minimum(torch.minimum(scaled * 2, scaled + 2), scaled / 2 + 4)
    codes = lines.sub_(0.5).ceil_().clamp_(0, 7).to(torch.uint8)
    codes |= ((blocks < 0) & (codes > 0)).to(torch.uint8) << 3
    return _mxfp4_blocks(codes, exponents.to(torch.uint8)).reshape(len(rows), -1).cpu().numpy()


def _mxfp4_blocks(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Codes [..., 32] and scales [..., 1] as GGML blocks [..., 17]."""
    return torch.cat((scales, codes[..., :16] | codes[..., 16:] << 4), -1)
