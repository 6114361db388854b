"""The trainer meets its container's memory limit: it is told as that, and the worker lives on."""

from tests.conftest import wait_for
from tests.stack.conftest import Stack

LIMIT = "1100m"  # enough for the worker, too little for the largest batch there is


def test_a_run_that_meets_the_memory_limit_is_reported_as_out_of_memory(stack: Stack, dataset: str) -> None:
    stack.up("--no-deps", "trainer", TRAINER_MEMORY=LIMIT)
    try:
        worker = stack.inspect("trainer")
        assert worker["HostConfig"]["Memory"] == 1100 << 20
        run_id = stack.train(dataset, "hungry", batch_size=64, steps=4, max_length=1024)
        status = stack.ended(run_id)
        assert status.state == "failed"
        assert "Out of memory: the run needed more than the 1.1 GiB" in str(status.reason)
        assert "TRAINER_MEMORY" in str(status.reason)
        assert stack.inspect("trainer")["RestartCount"] == 0, "only the run's own process was killed"
    finally:
        stack.up("--no-deps", "trainer")
    stack.client.post(f"/runs/{run_id}/resume")
    wait_for(lambda: stack.status(run_id).state == "succeeded", 240, "it succeeds with more memory")
