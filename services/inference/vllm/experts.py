"""vLLM's experts by Marlin's kernels, with less padding: a sixteenth less to be read for each token, and to be kept.

Where LoRA is enabled, vLLM (0.26 to 0.32) computes experts in MXFP4 by Marlin's kernels on every card. It pads them so that the widest
of their blocks fit, gpt-oss's 2880 to 3072 and 2944. A few tokens at a time are bound by the memory that weights are read from, and
blocks of 64 by 128 fit the sizes below, too.
"""

from functools import cache
from typing import Any

HIDDEN, INTERMEDIATE = 128, 64  # what the sizes become multiples of


def install() -> None:
    """Take over the sizes of this process's experts, before the model is loaded. Doing it twice does nothing more."""
    from vllm.model_executor.layers.fused_moe.experts import marlin_moe
    from vllm.model_executor.layers.quantization import mxfp4

    mxfp4.mxfp4_round_up_hidden_size_and_intermediate_size = sizes
    # vLLM 0.26 clears its kernels' locks in each layer, though they leave them clear; 0.32 keeps them by itself.
    make = getattr(marlin_moe, "marlin_make_workspace_new", None)
    if make is not None and not hasattr(make, "cache_info"):
        marlin_moe.marlin_make_workspace_new = cache(make)


def sizes(backend: Any, hidden: int, intermediate: int, *told: Any, **more: Any) -> tuple[int, int]:
    """(the hidden size, the intermediate size) as the kernels of vLLM's `backend` need them."""
    from vllm.model_executor.layers.fused_moe.oracle import mxfp4

    if backend != mxfp4.Mxfp4MoeBackend.MARLIN:
        return mxfp4.mxfp4_round_up_hidden_size_and_intermediate_size(backend, hidden, intermediate, *told, **more)
    return padded(hidden, intermediate)


def padded(hidden: int, intermediate: int) -> tuple[int, int]:
    """The least sizes from these up that Marlin's kernels take: of each of the two products, 64 divides what is summed over, and
    128 what comes out."""
    return -(-hidden // HIDDEN) * HIDDEN, -(-intermediate // INTERMEDIATE) * INTERMEDIATE
