"""What the ranks of a run tell each other beside gradients. Every rank must ask, at the same point, or all wait for it."""

import os

import torch
import torch.distributed as dist
from accelerate import PartialState


def join(ranks: int) -> None:
    """Let the ranks of a run find each other, which TRL's trainer would do later."""
    if not torch.cuda.is_available():
        # else accelerate says cpu:0 where there are several, which torch.load does not know when one is resumed
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if ranks > 1:
        PartialState()


def first_says(value: int) -> int:
    """Rank 0's value, on every rank."""
    if not dist.is_initialized():
        return value
    told = torch.tensor(value, device=PartialState().device)
    dist.broadcast(told, src=0)
    return int(told)


def greatest(value: int) -> int:
    """The greatest of the ranks' values."""
    if not dist.is_initialized():
        return value
    told = torch.tensor(value, device=PartialState().device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return int(told)


def least(value: int) -> int:
    """The least of the ranks' values."""
    return -greatest(-value)


def meet() -> None:
    """Return once every rank has come here."""
    greatest(0)
