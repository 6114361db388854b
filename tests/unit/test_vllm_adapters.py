"""Which adapters vLLM applies as PEFT does: the others are refused, with what would be lost."""

import json
from pathlib import Path

import pytest

from services.inference.engine import Unfit, Weights
from services.inference.vllm.adapters import check, rank_for
from tests.unit.tiny_adapter import ATTENTION, PARAMETERS, make_adapter

EXPERTS = PARAMETERS[:2]


def made(folder: Path, **options) -> Weights:
    make_adapter(folder, **{"parameters": EXPERTS, **options})
    return Weights("house@v1", "5ha", folder)


def change(weights: Weights, **config) -> Weights:
    file = Path(str(weights.adapter)) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return weights


def test_attention_and_experts_are_applied_and_attention_alone(tmp_path: Path) -> None:
    assert check(made(tmp_path / "both", rank=4)) == 4
    assert check(made(tmp_path / "attention", parameters=[], rank=8)) == 8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"parameters": PARAMETERS}, "no place there, as .*router"),
        ({"parameters": EXPERTS[:1]}, "gate_up_proj and down_proj"),
        ({"transposed": False}, "over transformers 5"),
    ],
    ids=["a router", "one of the experts' two", "axes swapped"],
)
def test_what_vllm_would_leave_out_or_take_for_something_else_is_refused(
    tmp_path: Path, options: dict, reason: str
) -> None:
    with pytest.raises(Unfit, match=f"house@v1: .*{reason}.*Set TANDEM_ENGINE=unsloth"):
        check(made(tmp_path, **options))


@pytest.mark.parametrize(
    "config", [{"use_dora": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}}]
)
def test_what_vllm_does_not_read_of_the_config_is_refused(tmp_path: Path, config: dict) -> None:
    with pytest.raises(Unfit, match=f"its {next(iter(config))} is not read"):
        check(change(made(tmp_path, modules=ATTENTION), **config))


def test_a_rank_beyond_vllms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="its rank is 600, and vLLM goes up to 512"):
        check(change(made(tmp_path), r=600))


def test_a_folder_that_is_no_adapter_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="house@v1 cannot be read"):
        check(Weights("house@v1", "5ha", tmp_path))


@pytest.mark.parametrize(("ranks", "room"), [([], 16), ([4], 16), ([8, 32], 32), ([48], 64), ([300], 320)])
def test_room_is_made_for_the_highest_rank(ranks: list[int], room: int) -> None:
    assert rank_for(ranks) == room
