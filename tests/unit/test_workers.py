"""Whose run needs which GPU, read from the trainers' files."""

import os
import time

import pytest

from shared.settings import Settings
from shared.store import Store, write_json
from shared.workers import holder

GPU = {"uuid": "GPU-1"}


@pytest.fixture
def worker(store: Store):
    """`worker(busy="train-1", …)` writes a trainer's file, `silent` seconds ago."""

    def write(silent: float = 0, **fields) -> None:
        path = store.workers() / "trainer-box.json"
        write_json(path, {"busy": "train-1", "kind": "train", "gpus": [{"uuid": "GPU-0"}, GPU], **fields})
        os.utime(path, (time.time() - silent, time.time() - silent))

    return write


@pytest.mark.parametrize("kind", ["train", "evaluate", "export"])
def test_a_run_that_loads_a_model_needs_the_gpu(settings: Settings, store: Store, worker, kind: str) -> None:
    worker(kind=kind)
    assert holder(settings, store, {"GPU-1"}) == "train-1"


@pytest.mark.parametrize(
    "fields",
    [
        {"busy": None, "kind": None},
        {"kind": "fetch"},
        {"kind": "benchmark"},
        {"gpus": [{"uuid": "GPU-2"}]},
        {"gpus": []},
        {"silent": 60},
        {"uses": 1},
    ],
    ids=["idle", "fetches", "measures the server itself", "another GPU", "no GPU", "silent", "the first GPU alone"],
)
def test_nobody_needs_it_otherwise(settings: Settings, store: Store, worker, fields: dict) -> None:
    worker(**fields)
    assert holder(settings, store, {"GPU-1"}) is None


def test_without_a_gpu_or_a_trainer_nobody_needs_one(settings: Settings, store: Store, worker) -> None:
    assert holder(settings, store, {"GPU-1"}) is None
    worker()
    assert holder(settings, store, set()) is None


def test_a_file_of_an_older_trainer_is_read(settings: Settings, store: Store) -> None:
    write_json(store.workers() / "trainer-old.json", {"busy": "train-1", "gpus": [GPU]})
    assert holder(settings, store, {"GPU-1"}) is None
