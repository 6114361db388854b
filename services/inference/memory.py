"""The memory of the GPU."""

import gc


def give_memory_back() -> None:
    """Let the GPU have what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
