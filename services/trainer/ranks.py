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
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(ranks)))).split(",")
    gpus = [*gpus, *[""] * ranks][:ranks]  # none where the CPU does for all
    # Each sees one GPU, which is number 0 to it: kernels compiled for that number are then found by all, and one process does
    # not take PyTorch's older way to share a batch among the GPUs that it sees. In nvidia-smi's order: others know them by it.
    seen = [{"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]
    if ranks == 1:
        return seen
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "LOCAL_RANK": "0"}
    # They speak with each other over this machine's loopback alone: other containers have no part in it.
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return [{**common, **own, "RANK": str(rank)} for rank, own in enumerate(seen)]


def mine() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
