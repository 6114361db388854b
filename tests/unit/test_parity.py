"""What is measured of an export against its adapter, and what is refused."""

import math
from contextlib import nullcontext
from pathlib import Path

import pytest

from services.trainer import parity
from services.trainer.child import Refused
from services.trainer.gguf import write_gguf
from services.trainer.gguf_tensors import Checkpoint
from services.trainer.lora import read_pairs
from services.trainer.merged import Merged
from services.trainer.parity import Answer
from services.trainer.served import Served
from shared.schemas import ENCODINGS
from tests.unit.tiny_adapter import make_adapter
from tests.unit.tiny_gpt_oss import PROMPT, save, tiny

LIKELY = {7: math.log(0.6), 8: math.log(0.3), 9: math.log(0.1)}


class Export:
    """Answers each place with the same distribution."""

    def __init__(self, told: dict[int, float]) -> None:
        self.told = told

    def __enter__(self) -> "Export":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, prompts: list, answers: list, top: int) -> list[list[dict[int, float]]]:
        return [[self.told] * len(answer) for answer in answers]

    def same_tokens(self, prompts: list) -> bool:
        return True

    def speed(self, prompts: list) -> None:
        pass


def measured(told: dict[int, float]) -> dict:
    return parity.measure(Export(told), [[1, 2], [3]], [Answer([7, 7], [LIKELY] * 2), Answer([7], [LIKELY])])


def test_the_same_distribution_agrees_entirely() -> None:
    found = measured(LIKELY)
    assert (found["tokens"], found["top1"], found["exact_answers"]) == (3, 1.0, 1.0)
    assert found["cosine"] == pytest.approx(1) and found["kl"] == pytest.approx(0)


def test_the_divergence_is_kullback_and_leiblers() -> None:
    found = measured({7: math.log(0.5), 8: math.log(0.25), 9: math.log(0.25)})
    assert found["top1"] == 1.0
    assert found["kl"] == pytest.approx(0.6 * math.log(0.6 / 0.5) + 0.3 * math.log(0.3 / 0.25) + 0.1 * math.log(0.4))


def test_a_share_lost_on_all_others_is_no_divergence_but_an_unnamed_token_is() -> None:
    assert measured({token: value - 0.2 for token, value in LIKELY.items()})["kl"] == pytest.approx(0)
    assert measured({5: math.log(0.9), 8: math.log(0.1)})["kl"] > 1


def test_a_token_without_probabilities_counts_for_top_1_alone() -> None:
    places = [[LIKELY, {7: 0.0}], [{8: 0.0}]]
    export = Export(LIKELY)
    export.read = lambda *_: places
    found = parity.measure(export, [[1], [3]], [Answer([7, 7], [LIKELY] * 2), Answer([7], [LIKELY])])
    assert found["top1"] == pytest.approx(2 / 3) and found["kl"] == pytest.approx(0) and found["exact_answers"] == 0.5


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_export_that_disagrees_is_refused_in_every_encoding(encoding: str) -> None:
    top1, cosine, kl = parity.BOUNDS[encoding]
    good = {"prompt_tokens_equal": True, "top1": top1, "cosine": cosine, "kl": kl}
    parity.judge(good, encoding)
    for bad in ({"top1": top1 - 0.01}, {"cosine": cosine - 0.01}, {"kl": kl + 0.01}):
        with pytest.raises(Refused, match="F16 is the encoding with the least loss"):
            parity.judge(good | bad, encoding)
    with pytest.raises(Refused, match="tokenizer"):
        parity.judge(good | {"prompt_tokens_equal": False}, encoding)


def test_an_export_that_lost_the_experts_deltas_is_refused_and_a_whole_one_is_not(tmp_path: Path) -> None:
    base, adapter = save(tiny(), tmp_path / "base"), tmp_path / "adapter"
    adapted = make_adapter(adapter)
    prompts = [PROMPT]
    reference = parity.answers(adapted, prompts)
    pairs = read_pairs(adapter, tiny().config.to_dict())
    attention = {name: pair for name, pair in pairs.items() if ".self_attn." in name}
    for held, refusal in ((pairs, nullcontext()), (attention, pytest.raises(Refused, match="does not agree"))):
        view = Merged(Checkpoint(base), held)
        file = write_gguf(base, tmp_path / f"{len(held)}.gguf", "F16", name="m", weights=view).path
        found = parity.measure(Served(file), prompts, reference) | {"prompt_tokens_equal": True}
        assert found["speed"]["prompt"] > 0 and found["speed"]["decode"] > 0
        with refusal:
            parity.judge(found, "F16")
