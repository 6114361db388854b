"""The page of a run as text: what it says of memory, and of attempts that ran out of it."""

import re
from typing import Any

import pytest

from shared import runs
from shared.settings import Settings
from tests.integration.api import Api

RUN = "train-1"
GIB = 1 << 30
PARTS = {"weights": 12, "adapter": 1, "optimizer": 1, "activations": 2, "logits": 1, "runtime": 1}  # GiB


@pytest.fixture
def api(settings: Settings) -> Api:
    api = Api(settings)
    api.run(RUN, "running")
    return api


def remember(api: Api, **more: Any) -> None:
    predicted = {name: size * GIB for name, size in PARTS.items()}
    predicted["total"] = sum(predicted.values())
    runs.append_event(
        api.store, RUN, "memory", form="MXFP4", why="it is", available=24 * GIB, predicted=predicted, **more
    )


def memory(api: Api) -> str:
    """The text of the section on memory, white space as single spaces."""
    page = api("GET", f"/runs/{RUN}", 200, headers={"Accept": "text/html"}).text
    section = re.search(r'<section aria-labelledby="memory">.*?</section>', page, re.DOTALL)
    assert section
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section[0]))


def test_memory_is_predicted_while_a_run_runs(api: Api) -> None:
    runs.append_event(api.store, RUN, "micro_batch", batch_size=1, accumulation=4, gpus=2)
    remember(api, shards=2)
    said = memory(api)
    assert "It is sharded among 2 GPUs, each of which keeps a part of every layer." in said
    assert "A step is 4 batches of 1 row, shared by 2 GPUs." in said
    assert "CUDA, Python and their libraries 1.0 GiB" in said and "Together 18.0 GiB when it has ended" in said


def test_on_a_gpu_both_sums_leave_out_what_pytorch_does_not_count(api: Api) -> None:
    measured = {"weights": 12 * GIB, "adapter": GIB, "optimizer": GIB, "activations": 2 * GIB, "total": 16 * GIB}
    remember(api, measured=measured, error=17 / 16 - 1)
    said = memory(api)
    assert "Together , without the 1.0 GiB of CUDA itself: predicted 6.2 % too much 17.0 GiB 16.0 GiB" in said


def test_without_a_gpu_it_says_why_the_parts_are_not_measured(api: Api) -> None:
    remember(api, measured={"total": 20 * GIB}, error=18 / 20 - 1)
    said = memory(api)
    assert "Without a GPU only the sum can be measured." in said
    assert "Together : predicted 10.0 % too little 18.0 GiB 20.0 GiB" in said
