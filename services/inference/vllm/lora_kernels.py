"""LoRA for few tokens: two kernels a projection, in which each row of the batch reads its own adapter's weights.

A row is a token, or a token at one of its experts. `shrink` takes it to the adapter's rank, `expand` takes that to the
projection's output. A program does one row and one piece of the weights, so that many of them wait for memory at once, and
nothing is sorted, zeroed or added atomically: what Punica calls BGMV (https://arxiv.org/abs/2310.18547). Past some hundred
tokens rows share weights so often that matrix products win.
"""

# A Triton kernel's arguments have no Python types, and its constants are written in capitals:
# ruff: noqa: ANN001, N803

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

# The slices of a projection, each contiguous: A is [slots, experts, rank, in], B is [slots, experts, out, rank].
Weights = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Rows:
    """Whose weights each row reads.

    slots    int32 [tokens]: the adapter of each token; below 0 or past the last one: none
    experts  int [tokens · per_token]: the expert of each row, or None where a projection has one set of weights
    enabled  int32 [slots or more]: 0 where an adapter has no experts; None where `experts` is
    """

    slots: torch.Tensor
    experts: torch.Tensor | None = None
    enabled: torch.Tensor | None = None
    per_token: int = 1

    @property
    def count(self) -> int:
        return self.slots.numel() * self.per_token


@dataclass(frozen=True)
class Blocks:
    """How much a program does. `overlap`: expanding programs fetch their weights while the shrinking ones still run, which
    needs compute capability 9 (https://docs.nvidia.com/cuda/cuda-c-programming-guide/#programmatic-dependent-launch)."""

    ranks: int = 4
    inputs: int = 1024
    shrink_warps: int = 4
    outputs: int = 256
    expand_warps: int = 4
    overlap: bool = False


def fits(rank: int) -> bool:
    """Whether the kernels can do adapters of this rank: a power of two whose row of B a thread block holds in registers."""
    return rank <= 64 and rank & (rank - 1) == 0


def shrink(x: torch.Tensor, a: Weights, out: torch.Tensor, rows: Rows, blocks: Blocks, scale: float = 1.0) -> None:
    """Set out[s, row] to scale · A_s · x[row], and to 0 for a row without adapter.

    x is [tokens or rows, in or more] with columns side by side in memory, out float32 [slices, rows, rank], contiguous.
    """
    rank, width = a[0].shape[-2:]
    ranks = min(blocks.ranks, rank)
    _shrink[rows.count, rank // ranks, len(a)](
        x, out, table(a), rows.slots, rows.experts, rows.enabled, scale, x.stride(0), rows.count,
        SLOTS=a[0].shape[0], EXPERTS=a[0].shape[1], PER_TOKEN=rows.per_token, PER_X=rows.count // x.shape[0],
        RANK=rank, WIDTH=width, RANKS=ranks, INPUTS=min(blocks.inputs, triton.next_power_of_2(width)),
        OVERLAP=blocks.overlap, num_warps=blocks.shrink_warps,
    )  # fmt: skip


def expand(
    narrow: torch.Tensor, b: Weights, out: torch.Tensor, rows: Rows, blocks: Blocks,
    routed: torch.Tensor | None = None, add: bool = True,
) -> None:  # fmt: skip
    """Add B_s · narrow[s, row], times routed[row], to the columns of out[row] that are slice s's; without `add`, set them.

    narrow is what `shrink` gives, out [rows, all slices' widths] with columns side by side in memory, routed float32 [rows]. Rows
    without adapter stay as they are.
    """
    widest = max(weights.shape[-2] for weights in b)
    _expand[rows.count, triton.cdiv(widest, blocks.outputs), len(b)](
        narrow, out, table(b), rows.slots, rows.experts, rows.enabled, routed, out.stride(0), rows.count,
        SLOTS=b[0].shape[0], EXPERTS=b[0].shape[1], PER_TOKEN=rows.per_token,
        RANK=b[0].shape[-1], OUTPUTS=blocks.outputs, ADD=add,
        OVERLAP=blocks.overlap, num_warps=blocks.expand_warps, **({"launch_pdl": True} if blocks.overlap else {}),
    )  # fmt: skip


_tables: dict[tuple[tuple[int, int], ...], torch.Tensor] = {}


def table(weights: Weights) -> torch.Tensor:
    """int64 [slices, 3]: address, first output column and width of each slice. Kept: a CUDA graph may not make it."""
    key = tuple((w.data_ptr(), w.shape[-2]) for w in weights)
    if key not in _tables:
        starts = [sum(width for _, width in key[:i]) for i in range(len(key))]
        lines = [[address, start, width] for (address, width), start in zip(key, starts, strict=True)]
        _tables[key] = torch.tensor(lines, dtype=torch.int64, device=weights[0].device)
    return _tables[key]


@triton.jit
def _whose(slots, experts, enabled, row, SLOTS: tl.constexpr, EXPERTS: tl.constexpr, PER_TOKEN: tl.constexpr):
    """The index of a row's weights among all slots' experts, and whether it has any. Padding's slot and expert may be anything."""
    slot = tl.load(slots + row // PER_TOKEN)
    any_ = (slot >= 0) & (slot < SLOTS)
    index = slot.to(tl.int64) * EXPERTS
    if experts is not None:
        expert = tl.load(experts + row)
        any_ = any_ & (expert >= 0) & (expert < EXPERTS)
        any_ = any_ & (tl.load(enabled + slot, mask=any_, other=0) != 0)
        index += expert
    return index, any_


@triton.jit(do_not_specialize=["rows"])  # or there would be three of each
def _shrink(
    x, out, table, slots, experts, enabled, scale, stride, rows,
    SLOTS: tl.constexpr, EXPERTS: tl.constexpr, PER_TOKEN: tl.constexpr, PER_X: tl.constexpr,
    RANK: tl.constexpr, WIDTH: tl.constexpr, RANKS: tl.constexpr, INPUTS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    row, part, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    index, any_ = _whose(slots, experts, enabled, row, SLOTS, EXPERTS, PER_TOKEN)
    ranks = part * RANKS + tl.arange(0, RANKS)
    inputs = tl.arange(0, INPUTS)
    total = tl.zeros((RANKS, INPUTS), dtype=tl.float32)
    if any_:
        first = tl.load(table + piece * 3).to(tl.pointer_type(x.dtype.element_ty)) + index * (RANK * WIDTH)
        for start in tl.static_range(0, WIDTH, INPUTS):
            there = start + inputs < WIDTH
            values = tl.load(x + row // PER_X * stride + start + inputs, mask=there, other=0.0)
            # The address comes from memory: without the hint Triton reads two bytes at a time.
            address = tl.multiple_of(first + ranks[:, None] * WIDTH + start + inputs[None, :], (1, 16))
            weights = tl.load(address, mask=there[None, :], other=0.0)
            total += weights.to(tl.float32) * values.to(tl.float32)[None, :]
    tl.store(out + (piece * rows + row) * RANK + ranks, tl.sum(total, 1) * scale)


@triton.jit(do_not_specialize=["rows"])
def _expand(
    narrow, out, table, slots, experts, enabled, routed, stride, rows,
    SLOTS: tl.constexpr, EXPERTS: tl.constexpr, PER_TOKEN: tl.constexpr,
    RANK: tl.constexpr, OUTPUTS: tl.constexpr, ADD: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    row, part, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    index, any_ = _whose(slots, experts, enabled, row, SLOTS, EXPERTS, PER_TOKEN)
    column = tl.load(table + piece * 3 + 1)
    width = tl.where(any_, tl.load(table + piece * 3 + 2), 0)  # a row without adapter has no outputs
    outputs = part * OUTPUTS + tl.arange(0, OUTPUTS)
    ranks = tl.arange(0, RANK)
    there = outputs < width
    first = tl.load(table + piece * 3).to(tl.pointer_type(out.dtype.element_ty)) + index * width * RANK
    address = tl.multiple_of(first + outputs[:, None] * RANK + ranks[None, :], (1, 16))
    weights = tl.load(address, mask=there[:, None], other=0.0)
    if OVERLAP:
        tl.extra.cuda.gdc_wait()  # in every program, or what follows could start before the shrinking ones have ended
    if part * OUTPUTS < width:
        target = out + row.to(tl.int64) * stride + column + outputs
        values = tl.load(narrow + (piece * rows + row) * RANK + ranks)
        if ADD:
            before = tl.load(target, mask=there, other=0.0)
        delta = tl.sum(weights.to(tl.float32) * values[None, :], 1)
        if routed is not None:
            delta *= tl.load(routed + row)
        if ADD:
            delta += before.to(tl.float32)
        tl.store(target, delta.to(out.dtype.element_ty), mask=there)
