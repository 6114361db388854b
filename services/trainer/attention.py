"""gpt-oss's attention over rows that hold several examples: sinks and sliding windows as ever, and no example sees another.

    attention.install(model)
    model(input_ids=ids, position_ids=positions, labels=labels)   # positions start anew at 0 with each example

Neither transformers' model nor Unsloth's training kernel looks at position ids when it masks, so joined examples would see
each other. Where each example begins is in the position ids, which reach every layer, also when it is computed again.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers.models.gpt_oss.modeling_gpt_oss import apply_rotary_pos_emb, eager_attention_forward

ROW = 128  # rows are as long as a multiple of this: a block of flex attention


def install(model: nn.Module) -> None:
    """Have the model's attention keep examples apart wherever it is called without a cache; with one it is as it was.

    Padding is only allowed at a row's end, where a causal mask hides it."""
    for module in list(model.modules()):
        if type(module).__name__ == "GptOssModel":
            module.register_forward_pre_hook(_without_masks, with_kwargs=True)
        elif type(module).__name__ == "GptOssAttention":
            _wrap(module)


def _without_masks(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """Keep the model from making masks of its own, which grow with the square of the length, and a cache."""
    if not kwargs.get("use_cache") and kwargs.get("past_key_values") is None:
        masks = {"full_attention": None, "sliding_attention": None}
        kwargs = {**kwargs, "attention_mask": masks, "use_cache": False}
    return args, kwargs


def _wrap(attention: nn.Module) -> None:
    original = attention.forward

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        if past_key_values is not None or position_ids is None:
            return original(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
                **kwargs,
            )
        return attend(attention, hidden_states, position_embeddings, position_ids), None

    attention.forward = forward


def attend(
    attention: nn.Module,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    position_ids: torch.Tensor,
) -> torch.Tensor:
    """What the layer adds to its residual stream: hidden_states [batch, length, hidden] in and out, position_ids
    [batch or 1, length]."""
    shape = (*hidden_states.shape[:-1], -1, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (projection(hidden_states).view(shape).transpose(1, 2) for projection in projections)
    query, key = (_rotate() if query.is_cuda else apply_rotary_pos_emb)(query, key, *position_embeddings)
    kernel = _flex if hidden_states.is_cuda else _eager
    out = kernel(attention, query, key.to(query.dtype), value.to(query.dtype), position_ids)
    return attention.o_proj(out.reshape(*hidden_states.shape[:-1], -1))


@functools.cache
def _rotate() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The rotary embedding as one kernel."""
    from unsloth_zoo.temporary_patches.common import torch_compile

    return torch_compile(apply_rotary_pos_emb)


def examples_of(position_ids: torch.Tensor) -> torch.Tensor:
    """The number of the example that each token belongs to: [batch, length] in and out."""
    return (position_ids == 0).cumsum(-1)


def _flex(
    attention: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position_ids: torch.Tensor
) -> torch.Tensor:
    """[batch, heads, length, head] in, [batch, length, heads, head] out. The sink is one more term of the softmax's sum, so
    it scales what the others give."""
    from unsloth_zoo.flex_attention.utils import (
        FLEX_LSE_KWARGS,
        PREFILL_KERNEL_OPTIONS,
        flex_attention,
        flex_output_and_lse,
    )

    out, lse = flex_output_and_lse(
        flex_attention(
            query,
            key,
            value,
            block_mask=_block_mask(position_ids, attention.sliding_window),
            scale=attention.scaling,
            enable_gqa=True,
            kernel_options=PREFILL_KERNEL_OPTIONS,
            **FLEX_LSE_KWARGS,
        )
    )
    share = torch.sigmoid(lse - attention.sinks[:, None])
    return (out * share[..., None].to(out.dtype)).transpose(1, 2)


def _block_mask(position_ids: torch.Tensor, window: int | None) -> BlockMask:
    """The mask in blocks; kept on the tensor of positions, as half of the layers share each."""
    kept = position_ids.__dict__.setdefault("block_masks", {})
    if window not in kept:
        kept[window] = block_mask(position_ids, window)
    return kept[window]


def block_mask(position_ids: torch.Tensor, window: int | None) -> BlockMask:
    """What flex attention's `create_block_mask` makes of `dense_mask`, from the ends of the blocks alone. That one looks at
    each pair of tokens, in a kernel which for some lengths takes minutes to compile."""
    example, (_, length) = examples_of(position_ids), position_ids.shape
    reach = window or length
    block = torch.arange(-(-length // ROW), device=position_ids.device)
    first, last = example[:, block * ROW], example[:, (block * ROW + ROW - 1).clamp(max=length - 1)]
    back = (block[:, None] - block) * ROW  # from a block of keys to one of queries, in tokens
    nearest = (back - (ROW - 1) < reach) & (first[:, :, None] == last[:, None, :])
    some = (back == 0) | ((back > 0) & nearest)
    farthest = (back + ROW - 1 < reach) & (last[:, :, None] == first[:, None, :])
    every = (back > 0) & farthest & ((block + 1) * ROW <= length)[:, None]

    def whole(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q >= k) & (example[b, q] == example[b, k])

    def within(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return whole(b, h, q, k) & (q - k < reach)

    mask = within if window else whole
    return BlockMask.from_kv_blocks(
        *_listed(some & ~every), *_listed(every), BLOCK_SIZE=ROW, mask_mod=mask, seq_lengths=(length, length)
    )


def _listed(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[batch, queries, keys] as flex attention wants it: how many blocks of keys, and which, the named ones first."""
    many = blocks.sum(-1, dtype=torch.int32)[:, None]
    which = blocks.int().argsort(dim=-1, descending=True, stable=True).int()[:, None]
    return many.contiguous(), which.contiguous()


def _eager(
    attention: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position_ids: torch.Tensor
) -> torch.Tensor:
    """As `_flex`, by matrix products: the reference, and what a CPU does."""
    mask = torch.where(dense_mask(position_ids, attention.sliding_window), 0.0, torch.finfo(query.dtype).min)
    out, _ = eager_attention_forward(attention, query, key, value, mask[:, None].to(query.dtype), attention.scaling)
    return out


def dense_mask(position_ids: torch.Tensor, window: int | None) -> torch.Tensor:
    """Which token sees which: [batch, query, key], true where it does."""
    example, length = examples_of(position_ids), position_ids.shape[-1]
    place = torch.arange(length, device=position_ids.device)
    back = place[:, None] - place
    sees = (back >= 0) & (back < (window or length))
    return sees & (example[:, :, None] == example[:, None, :])
