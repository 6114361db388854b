"""A base checkpoint with an adapter added to it, read a piece at a time: what an export is made of, at any size.

    view = Merged(Checkpoint(base), read_pairs(adapter, config))

Nothing is merged in a model: each tensor is base + scale * B @ A in float32, one expert's matrix in memory at a time. A native
MXFP4 parameter that the adapter changes is decoded; one that it leaves alone keeps its blocks, bit for bit.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from services.trainer.gguf_tensors import Checkpoint
from services.trainer.lora import Pair

SHARD_BYTES = 4 << 30
# e2m1: a sign, two bits of exponent, one of mantissa (OCP Microscaling 1.0)
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


class Merged:
    """Reads like `Checkpoint`. With `dense` every native parameter is decoded, changed or not."""

    def __init__(self, base: Checkpoint, pairs: dict[str, Pair], *, dense: bool = False) -> None:
        """Raises ValueError for a pair whose tensor the base does not have."""
        self.base, self.pairs = base, pairs
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        native = {name.removesuffix("_blocks") for name in base.names() if name.endswith("_blocks")}
        self.decoded = native if dense else native & set(pairs)
        if lost := [name for name in pairs if name not in base.names() | native]:
            raise ValueError(f"the base has no tensor {lost[0]}, which the adapter changes")

    def names(self) -> set[str]:
        hidden = {f"{name}_{part}" for name in self.decoded for part in ("blocks", "scales")}
        return self.base.names() - hidden | self.decoded

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ValueError when there is no such tensor."""
        if name not in self.decoded:
            return self.base.shape(name)
        experts, out, blocks, _ = self.base.shape(f"{name}_blocks")
        return experts, blocks * 32, out

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements `start:stop` of the first axis, the other axes whole; float32 where the adapter or decoding changes them."""
        if name in self.decoded:
            blocks, scales = (self.base.rows(f"{name}_{part}", start, stop) for part in ("blocks", "scales"))
            found = decode_mxfp4(blocks.to(self.device), scales.to(self.device)).mT
        else:
            found = self.base.rows(name, start, stop)
        pair = self.pairs.get(name)
        if pair is None:
            return found
        found = found.to(self.device, torch.float32)
        a = pair.a.to(self.device, torch.float32)
        if found.dim() == 2:  # [out, in]
            return found + pair.scale * pair.b[start:stop].to(self.device, torch.float32) @ a
        b = pair.b[start:stop].to(self.device, torch.float32)
        return found + pair.scale * (b @ a[start:stop]).mT  # [experts, in, out]


def decode_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """OpenAI's MXFP4, blocks [..., n, 16] and scales [..., n] in uint8, as float32 [..., n * 32].

    Byte j of a block holds elements 2j (low nibble) and 2j + 1; the scale is 2^(e - 127)
    (`transformers/integrations/mxfp4.py`)."""
    table = E2M1.to(blocks.device)
    values = torch.stack((table[(blocks & 15).int()], table[(blocks >> 4).int()]), -1).flatten(-2)
    return torch.ldexp(values, scales.int().sub_(127).unsqueeze(-1)).flatten(-2)


def write_merged(view: Merged, base: Path, out: Path, check: Callable[[], None]) -> None:
    """Write `view` to the new folder `out` as bf16 safetensors in shards, with the base's tokenizer and a config that names
    no quantisation. `check` is called before each tensor and may raise."""
    out.mkdir(parents=True)
    shards: list[list[str]] = []
    for number, shard in enumerate(_shards(view)):
        tensors = {}
        for name in shard:
            check()
            tensors[name] = _whole(view, name)
        save_file(tensors, out / f"part-{number}.safetensors", metadata={"format": "pt"})
        shards.append(shard)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards):
        called = f"model-{number + 1:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        (out / f"part-{number}.safetensors").rename(out / called)
        index |= dict.fromkeys(shard, called)
    if len(shards) > 1:
        size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1)
        (out / "model.safetensors.index.json").write_text(text)
    config = json.loads((base / "config.json").read_text())
    config.pop("quantization_config", None)
    config.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=2) + "\n")
    for path in base.iterdir():
        if path.name.startswith(("tokenizer", "special_tokens_map", "chat_template", "generation_config")):
            shutil.copyfile(path, out / path.name)


def _shards(view: Merged) -> Iterator[list[str]]:
    """Names in order, as many together as make up a shard of 16-bit weights."""
    shard: list[str] = []
    size = 0
    for name in sorted(view.names()):
        bytes_ = 2 * torch.Size(view.shape(name)).numel()
        if shard and size + bytes_ > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += bytes_
    yield shard


def _whole(view: Merged, name: str) -> torch.Tensor:
    """A tensor in bf16, put together from one expert at a time."""
    shape = view.shape(name)
    step = 1 if len(shape) == 3 else shape[0]
    pieces = [view.rows(name, i, i + step).to("cpu", torch.bfloat16) for i in range(0, shape[0], step)]
    return torch.cat(pieces).contiguous()
