"""Each encoding agrees with the adapter it was made from; an evaluation says that the adapter is ahead of its base."""

import pytest

from shared import registry, runs
from shared.schemas import Job
from tests.integration.conftest import Served, by_hand


@pytest.mark.parametrize("encoding", ["Q8_0", "MXFP4", "merged"])
def test_an_export_agrees_with_its_adapter(served: Served, encoding: str) -> None:
    by_hand(served.settings, "export", Job(adapter="house@v1", encoding=encoding))
    card = next(card for card in registry.exports(served.store) if card.encoding == encoding)
    path = served.store.export(card.file)
    assert path.exists() and card.adapter_sha256 == registry.adapter_card(served.store, "house@v1").sha256
    assert card.parity["prompt_tokens_equal"] and card.parity["top1"] >= 0.8 and card.parity["cosine"] >= 0.95
    assert not list(served.store.exports().glob(".staging*"))
    if encoding == "MXFP4":
        assert card.tensors["MXFP4"]["count"] > 0 and 4 < card.bits_per_weight < 9


def test_an_evaluation_compares_adapter_and_base(served: Served) -> None:
    by_hand(served.settings, "evaluate", Job(adapter="house@v1"))
    run_id = next(run for run in runs.ids(served.store) if run.startswith("evaluate-"))
    found = next(runs.all_events(served.store, run_id, "evaluation"))
    assert found["adapter"]["loss"] < found["base"]["loss"]
    assert found["adapter"]["answers"] != found["base"]["answers"]
