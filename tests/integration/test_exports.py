"""Each encoding agrees with the adapter it was made from; an evaluation says that the adapter is ahead of its base."""

import shutil
from pathlib import Path

import pytest

from services.trainer import parity
from services.trainer.gguf_types import K_QUANTS
from shared import registry, runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.integration.conftest import Served, by_hand


@pytest.fixture(scope="module")
def bench(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of what is served: an export made here must not become the newest one that the GGUF server follows."""
    data = Path(shutil.copytree(served.settings.data, tmp_path_factory.mktemp("exports") / "data"))
    return served.settings.model_copy(update={"data": data})


# F16 is exported elsewhere; the other K-quants differ in types alone, which tests/unit/test_gguf_types.py answers from
@pytest.mark.parametrize("encoding", ["MXFP4", "Q8_0", "Q4_K_M", "LoRA", "merged"])
def test_an_export_agrees_with_its_adapter(bench: Settings, encoding: str) -> None:
    store = Store(bench.data)
    by_hand(bench, "export", Job(adapter="house@v1", encoding=encoding))
    card = next(card for card in registry.exports(store) if card.encoding == encoding)
    path = store.export(card.file)
    assert path.exists() and card.adapter_sha256 == registry.adapter_card(store, "house@v1").sha256
    top1, cosine, kl = parity.BOUNDS[encoding]
    assert card.parity["prompt_tokens_equal"] and card.parity["top1"] >= top1 and card.parity["cosine"] >= cosine
    assert 0 <= card.parity["kl"] <= kl
    assert not list(store.exports().glob(".staging*"))
    if encoding == "merged":
        assert card.parity["speed"] is None and not card.tensors
        return
    assert card.parity["speed"]["decode"] > 0 and card.parity["speed"]["prompt"] > 0
    assert (card.fallback_share > 0.9) == (encoding in K_QUANTS), "rows of 64 do not divide into blocks of 256"
    if encoding == "MXFP4":
        assert card.tensors["MXFP4"]["count"] > 0 and 4 < card.bits_per_weight < 9


def test_what_was_compared_is_exact_in_16_bits(served: Served) -> None:
    card = registry.export_card(served.store, "house-v1-F16")
    assert card.parity["top1"] >= 0.99 and card.parity["cosine"] >= 0.999 and card.parity["kl"] < 0.001


def test_an_evaluation_compares_adapter_and_base(bench: Settings) -> None:
    store = Store(bench.data)
    by_hand(bench, "evaluate", Job(adapter="house@v1"))
    run_id = next(run for run in runs.ids(store) if run.startswith("evaluate-"))
    found = next(runs.all_events(store, run_id, "evaluation"))
    assert found["adapter"]["loss"] < found["base"]["loss"]
    assert found["adapter"]["answers"] != found["base"]["answers"]
