"""A frozen base that is sharded among a run's GPUs, by PyTorch's FSDP2: each has a part of every layer.

A layer is gathered where it is computed, forth and back, so every rank must take part in each forward pass. What is trained
is not sharded: each rank has all of the adapter, and DDP averages its gradients. Optimizer, checkpoints and what is published
are therefore those of a run that is not sharded, and either kind goes on from a checkpoint of the other.
"""

import services.trainer.unsloth_first  # noqa: F401, I001

from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from services.trainer.child import Refused

INTEGERS = "2.13"  # of PyTorch, whose FSDP2 takes them (https://github.com/pytorch/pytorch/issues/177844)


def shard(model: Any, ranks: int) -> tuple[int, int]:
    """Keep of each decoder layer this rank's part alone, on its GPU, and there the rest of the base; returns the bytes of
    that part, and of the layers as a whole. The adapter, whose parameters alone may be trainable, is left as it is and where
    it is. Raises Refused."""
    frozen, trained = _split(model)
    if any(type(tensor).__name__ == "Params4bit" for tensor in frozen):
        _keep_nf4()
    device = PartialState().device
    mesh = init_device_mesh(device.type, (ranks,))
    decoder = model.get_decoder()
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=set(trained))
    # It shards nothing more: through it the layers know each other, and the next one is fetched while one computes.
    fully_shard(decoder, mesh=mesh, ignored_params={p for p in decoder.parameters() if not isinstance(p, DTensor)})
    _move([*_split(model)[0], *model.buffers()], device)
    # by the map with which it was loaded, PEFT would place the model anew when an adapter is read
    model.get_base_model().__dict__.pop("hf_device_map", None)
    parts = [p for p in decoder.parameters() if isinstance(p, DTensor)]
    return sum(p.to_local().nbytes for p in parts), sum(p.numel() * p.element_size() for p in parts)


def place(model: Any) -> None:
    """Put the adapter of a sharded base onto this rank's GPU."""
    _move(_split(model)[1], PartialState().device)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was called on the model."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """A model whose adapter's gradients are averaged over the ranks; DDP sees nothing else of it."""
    ignored = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    ignored += [name for name, _ in model.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)
    device = PartialState().device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def _split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of the base, and those of the adapter."""
    every = list(model.parameters())
    return [p for p in every if not p.requires_grad], [p for p in every if p.requires_grad]


def _move(tensors: list[torch.Tensor], device: torch.device) -> None:
    for tensor in tensors:
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)


def _keep_nf4() -> None:
    """Have FSDP2 keep the scales of NF4 weights with what it gathers: it makes plain parameters of them."""
    from unsloth.models.fsdp2_qlora import patch_fsdp2_params4bit

    if torch.__version__ < INTEGERS:  # compared as versions are
        done, why = False, f"PyTorch {torch.__version__} shards no integers, {INTEGERS} does"
    else:
        done, why = patch_fsdp2_params4bit()
    if not done:
        raise Refused(f"NF4 weights cannot be sharded here: {why}. Set shard to never, or precision to bf16.")
