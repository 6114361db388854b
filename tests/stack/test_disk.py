"""/data runs full: what cannot be written fails with that reason, what is published stays whole, and room brings it back."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.client import Failure
from shared import registry
from shared.store import free_bytes
from tests.conftest import wait_for
from tests.stack.conftest import CONVERSATIONS, Stack


@contextlib.contextmanager
def full(stack: Stack, leave: int = 0) -> Iterator[None]:
    """A disk with `leave` bytes of room, while this lasts."""
    if not os.path.ismount(stack.store.root):
        pytest.skip("The data directory has no file system of its own, and this machine's disk is not to be filled.")
    ballast = stack.store.root / ".ballast"
    file = os.open(ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        os.posix_fallocate(file, 0, free_bytes(stack.store.root) - leave)
        with contextlib.suppress(OSError):
            while leave == 0:  # what was given back meanwhile, to the last page
                os.write(file, bytes(4096))
        yield
    finally:
        os.close(file)
        ballast.unlink()


def whole(stack: Stack) -> dict[str, str]:
    """Every published adapter and export with the hash of its weights, read again and compared with its card."""
    found = {}
    for card in registry.adapters(stack.store):
        found[card.reference] = registry.sha256(stack.store.adapter(card.reference) / "adapter_model.safetensors")
        assert found[card.reference] == card.sha256
    for card in registry.exports(stack.store):
        found[card.file] = registry.sha256(stack.store.export(card.file))
        assert found[card.file] == card.sha256
    return found


def leftovers(folder: Path) -> list[Path]:
    """Staging that nobody will ever finish."""
    return [path for path in folder.glob(".*") if path.name.startswith(".staging")]


def test_training_on_a_full_disk_fails_with_that_reason_and_resumes_when_there_is_room(
    stack: Stack, dataset: str
) -> None:
    run_id = stack.train(dataset, "squeezed")
    stack.at_step(run_id, 5)
    published = whole(stack)
    with full(stack):
        status = stack.ended(run_id)
        assert status.state == "failed" and "disk is full" in str(status.reason)
        assert stack.client.get(f"/runs/{run_id}")["reason"] == status.reason
        assert whole(stack) == published
    stack.client.post(f"/runs/{run_id}/resume")
    wait_for(lambda: stack.status(run_id).state == "succeeded", 240, "the resumed run succeeds")
    assert stack.metrics(run_id) == list(range(1, stack.status(run_id).steps + 1))


def test_an_export_without_room_fails_with_that_reason_and_leaves_nothing(stack: Stack, adapter: str) -> None:
    published = whole(stack)
    with full(stack, leave=20 << 20):  # enough to begin, too little for the file
        run_id = stack.client.post("/runs", {"kind": "export", "adapter": adapter, "encoding": "F16"})["id"]
        status = stack.ended(run_id)
        assert status.state == "failed"
        assert "free. Delete exports or checkpoints" in str(status.reason), status
        assert whole(stack) == published
        assert not leftovers(stack.store.exports())
    stack.client.post(f"/runs/{run_id}/resume")
    wait_for(lambda: stack.status(run_id).state == "succeeded", 240, "the resumed export succeeds")
    assert stack.status(run_id).result in whole(stack)


def test_an_upload_without_room_is_refused_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    with open(large, "wb") as file:
        for _ in range(300):
            file.write(CONVERSATIONS.read_bytes())
    before = sorted(path.name for path in stack.store.datasets().iterdir() if not path.name.startswith("."))
    assert large.stat().st_size > 4 << 20
    with full(stack, leave=4 << 20):
        with pytest.raises(Failure, match=r"Only \d MiB are free") as refused:
            stack.client.upload("/datasets", large, lambda _: None, filename=large.name, name="large")
        assert refused.value.status == 507
        params = {"filename": large.name, "name": "large"}
        with pytest.raises(Failure, match=r"free|full") as broken:  # without a length nobody can know before
            stack.client.call("POST", "/datasets", params=params, content=iter(large.open("rb")))
        assert broken.value.status == 507
    assert before == sorted(path.name for path in stack.store.datasets().iterdir() if not path.name.startswith("."))
    assert not leftovers(stack.store.datasets())
    assert stack.client.upload("/datasets", large, lambda _: None, filename=large.name, name="large")["rows"]


def test_a_full_disk_keeps_nobody_out_and_pages_say_that_it_is_full(stack: Stack) -> None:
    with full(stack):
        assert stack.client.get("/system")["services"]["dashboard"]["state"] == "up"
        page = stack.browser().get("/system", headers={"Authorization": f"Bearer {stack.key}", "Accept": "text/html"})
        assert page.status_code == 200
    assert shutil.disk_usage(stack.store.root).free > 1 << 30
