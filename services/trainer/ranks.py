"""A run on several GPUs: one process each, its rank, that finds the others by PyTorch's own environment variables.

They are started here and not by torchrun, which turns their exit codes into its own, and after SIGTERM kills them in thirty
seconds, whether or not a checkpoint is written. By hand, torchrun does as well.
"""

import os
import socket

from shared.schemas import Recipe


def count(recipe: Recipe | None, visible: int) -> int:
    """How many GPUs a run takes where the trainer has `visible` (0: none, the CPU does for all): as many as its recipe
    says, or as there are, that share its accumulation evenly. A run without a recipe takes one."""
    if recipe is None:
        return 1
    most = min(recipe.gpus, visible or recipe.gpus)
    return max(n for n in range(1, most + 1) if recipe.accumulation % n == 0)


def environments(ranks: int) -> list[dict[str, str]]:
    """What each rank's environment has beside its parent's."""
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi, by which others know the first ones
    if ranks == 1:  # and it sees one alone, or PyTorch's older way to share a batch among GPUs would be taken
        return [{**order, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**order, "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    # They speak with each other over this machine's loopback alone: other containers have no part in it.
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def mine() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
