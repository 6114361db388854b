"""vLLM's LoRA operators, answered by our kernels while a pass has few tokens.

vLLM (0.26 to 0.32) sorts a pass's tokens by adapter and expert and gives each group a program that walks a whole projection. With
32 streams over 8 adapters a group is one token, so the programs are few and long, and the tuned configuration files that vLLM
reads cannot help: these kernels take nothing but the height of a block from them. `install` puts `lora_kernels` under the same
operators and leaves the sorting out. vLLM's files and its compiled graphs stay as they are; a pass of more tokens, ranks above 64
and experts spread over GPUs go vLLM's own way.
"""

from typing import Any

import torch
from vllm.lora.ops.triton_ops import fused_moe_lora_op, lora_expand_op, lora_shrink_op
from vllm.lora.ops.triton_ops.utils import supports_pdl
from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU
from vllm.platforms import current_platform

from services.inference.vllm.lora_kernels import Blocks, Rows, expand, fits, shrink

TOKENS = 128  # of a pass, up to which our kernels are the faster ones
limit = TOKENS  # what counts now: a benchmark sets 0 to measure vLLM's own

_library: torch.library.Library | None = None  # an override lives as long as this


def install() -> None:
    """Take over the operators of this process, before CUDA graphs are captured. Doing it twice does nothing more."""
    global _library
    if _library is None:
        _library = torch.library.Library("vllm", "IMPL")
        for operator in (lora_shrink, lora_expand, fused_moe_lora):
            _library.impl(operator.__name__, operator, current_platform.dispatch_key, allow_override=True)
        PunicaWrapperGPU.moe_lora_align_block_size = align


def ours(tokens: int, rank: int, weights: list[torch.Tensor]) -> bool:
    """Whether a pass is for our kernels; weights that experts share are views, which they do not read."""
    return tokens <= limit and fits(rank) and all(w.ndim == 4 and w.is_contiguous() for w in weights)


def blocks() -> Blocks:
    return Blocks(overlap=supports_pdl())


@torch.inference_mode()
def lora_shrink(x: torch.Tensor, a: list[torch.Tensor], narrow: torch.Tensor, slots: torch.Tensor, *rest: Any) -> None:
    """x [tokens, in] to narrow float32 [slices, tokens, rank]; rest: vLLM's index of its groups, a flag on the CPU, the scale."""
    *_, without, _, scale = rest
    if not ours(x.shape[0], a[0].shape[-2], a):
        lora_shrink_op._lora_shrink(x, a, narrow, slots, *rest)
    elif not without.item():
        shrink(x.contiguous(), a, narrow, Rows(slots), blocks(), scale)


@torch.inference_mode()
def lora_expand(
    narrow: torch.Tensor, b: list[torch.Tensor], out: torch.Tensor, slots: torch.Tensor, *rest: Any
) -> None:
    """narrow [slices, tokens, rank] to the columns of out [tokens, all columns] from the offset on."""
    *_, without, _ = rest[:6]
    offset, add = (*rest[6:], *(0, False)[len(rest) - 6 :])
    if narrow.dtype != torch.float32 or not ours(narrow.shape[1], b[0].shape[-1], b):
        lora_expand_op._lora_expand(narrow, b, out, slots, *rest)
    elif not without.item():
        expand(narrow, b, out[:, offset:], Rows(slots), blocks(), add=add)


@torch.inference_mode()
def fused_moe_lora(
    out: torch.Tensor, x: torch.Tensor, a: list[torch.Tensor], b: list[torch.Tensor], routed: torch.Tensor,
    order: torch.Tensor | None, experts: torch.Tensor, padded: torch.Tensor | None, slots: torch.Tensor,
    rank: int, per_token: int, ids: torch.Tensor, active: torch.Tensor, enabled: torch.Tensor, *rest: Any,
) -> None:  # fmt: skip
    """out [tokens, experts of a token, all columns] gets its adapters' deltas. Without `order` nothing is sorted: ours."""
    by_weight, sharded, _, add = (*rest[14:], *(False, False, 0, True)[len(rest) - 14 :])
    if order is not None or sharded or not ours(len(out), rank, [*a, *b]):
        told = (order, experts, padded, slots, rank, per_token, ids, active, enabled)
        fused_moe_lora_op._fused_moe_lora(out, x, a, b, routed, *told, *rest)
        return
    rows = Rows(slots[: len(out)], experts, enabled, per_token)
    narrow = torch.empty(len(a), rows.count, rank, dtype=torch.float32, device=x.device)
    shrink(x, a, narrow, rows, blocks())
    expand(narrow, b, out.view(rows.count, -1), rows, blocks(), routed if by_weight else None, add)


_sorted = PunicaWrapperGPU.moe_lora_align_block_size


def align(
    self: PunicaWrapperGPU, topk_ids: torch.Tensor, count: int, height: int, experts: int, loras: int,
    enabled: torch.Tensor, expert_map: torch.Tensor | None = None, *, naive_block_assignment: bool = False, **rest: Any,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """The order in which vLLM's kernels take a pass's tokens; none where it is for ours."""
    config = self.lora_config
    unsorted = expert_map is None and not config.fully_sharded_loras and count <= limit and fits(config.max_lora_rank)
    naive = naive_block_assignment or unsorted
    return _sorted(
        self, topk_ids, count, height, experts, loras, enabled, expert_map, naive_block_assignment=naive, **rest
    )
