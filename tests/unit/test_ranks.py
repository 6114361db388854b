"""How many GPUs a run takes, and how its processes find each other."""

import pytest

from services.trainer import ranks
from shared import recipes


def test_a_number_that_cannot_share_a_step_evenly_is_refused_with_those_that_can() -> None:
    with pytest.raises(ValueError, match="set gpus to 1, 2, 3 or 6, or accumulation to a multiple of 4"):
        recipes.resolve("tiny", {"accumulation": 6, "gpus": 4})


@pytest.mark.parametrize(
    ("asked", "accumulation", "visible", "taken"),
    [(1, 8, 4, 1), (2, 8, 4, 2), (4, 8, 2, 2), (4, 8, 3, 2), (3, 3, 2, 1), (2, 2, 0, 2)],
)
def test_a_run_takes_what_its_recipe_says_or_as_many_as_there_are_and_share_evenly(
    asked: int, accumulation: int, visible: int, taken: int
) -> None:
    recipe = recipes.resolve("tiny", {"accumulation": accumulation, "gpus": asked})
    assert ranks.count(recipe, visible) == taken


def test_a_run_without_a_recipe_takes_one() -> None:
    assert ranks.count(None, 4) == 1


def test_each_rank_has_its_number_and_a_gpu_of_its_own_and_all_meet_at_one_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    first, second = ranks.environments(2)
    assert (first["RANK"], second["RANK"]) == ("0", "1")
    assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("2", "5")
    assert first["LOCAL_RANK"] == second["LOCAL_RANK"] == "0", "which is the only one that it sees"
    assert first["WORLD_SIZE"] == second["WORLD_SIZE"] == "2"
    assert (first["MASTER_ADDR"], first["MASTER_PORT"]) == (second["MASTER_ADDR"], second["MASTER_PORT"])


def test_there_are_as_many_ranks_where_no_gpu_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in ranks.environments(2)] == ["", ""]


def test_one_alone_is_told_of_nobody() -> None:
    assert [set(environment) & {"RANK", "WORLD_SIZE"} for environment in ranks.environments(1)] == [set()]
