"""A run needs more than its container's memory limit: it is refused before it is killed, and goes on once there is more."""

from tests.conftest import wait_for
from tests.stack.conftest import Stack

LIMIT = "1100m"  # enough for the worker, too little for the largest batch there is


def test_a_run_that_the_memory_limit_cannot_hold_is_refused_with_one_that_it_can(stack: Stack, dataset: str) -> None:
    stack.up("--no-deps", "trainer", TRAINER_MEMORY=LIMIT)
    try:
        worker = stack.inspect("trainer")
        assert worker["HostConfig"]["Memory"] == 1100 << 20
        run_id = stack.train(dataset, "hungry", batch_size=64, steps=4, max_length=1024)
        status = stack.ended(run_id)
        assert status.state == "failed"
        assert "GiB of memory, and there are 1.1 GiB" in str(status.reason)
        assert "The nearest that fits: batch_size 2, accumulation 32" in str(status.reason)
        assert stack.inspect("trainer")["RestartCount"] == 0
    finally:
        stack.up("--no-deps", "trainer")
    stack.client.post(f"/runs/{run_id}/resume")
    wait_for(lambda: stack.status(run_id).state == "succeeded", 240, "it succeeds with more memory")
