"""What a sweep may search: the usual ranges, how a person writes one, and each refusal with its sentence."""

import pytest

from shared import recipes, search
from shared.recipes import RecipeError
from shared.sweep_schemas import Range, SweepJob


def resolve(recipe: str = "standard", **asked) -> dict:
    return search.resolve(SweepJob(dataset="chats", search=asked), recipes.resolve(recipe))


def test_the_usual_ranges_are_those_of_the_plan() -> None:
    usual = {name: search.written(choice) for name, choice in search.usual(recipes.resolve("execution-plan")).items()}
    assert usual == {
        "learning_rate": "1e-05..0.0005",
        "lora_rank": "8, 16, 32, 64",
        "lora_alpha": "16, 32, 64",
        "warmup": "0.01..0.1",
        "weight_decay": "0..0.1",
        "accumulation": "4, 8, 16, 32",  # of one example each: the effective batch
        "epochs": "1..5",
    }


@pytest.mark.parametrize("name", recipes.names())
def test_every_usual_search_works_with_its_recipe_and_is_read_as_it_is_written(name: str) -> None:
    recipe = recipes.resolve(name)
    for value, choice in search.usual(recipe).items():
        written = search.written(choice)
        assert resolve(name, **{value: ""}) == {value: choice}
        assert search.written(resolve(name, **{value: written})[value]) == written


def test_a_tiny_base_is_searched_around_its_own_learning_rate() -> None:
    choice = search.usual(recipes.resolve("tiny"))["learning_rate"]
    assert choice.low < recipes.resolve("tiny").learning_rate < choice.high


def test_rate_and_rank_are_searched_when_nobody_says() -> None:
    assert list(resolve()) == ["learning_rate", "lora_rank"]


def test_a_wide_range_is_even_by_factors_and_a_narrow_one_is_not() -> None:
    assert resolve(learning_rate="1e-5..5e-4")["learning_rate"] == Range(low=1e-5, high=5e-4, log=True)
    assert resolve(warmup="0.05..0.1")["warmup"].log is False


def test_words_and_switches_are_searched_as_lists() -> None:
    assert resolve(scheduler="linear, cosine", rslora="true, false", train_router="true, false") == {
        "scheduler": ["linear", "cosine"],
        "rslora": [True, False],
        "train_router": [True, False],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"lora_rnk": ""}, "Did you mean 'lora_rank'?"),
        ({"max_length": "256..512"}, "max_length cannot be searched"),
        ({"validation_share": "0.1, 0.2"}, "validation_share cannot be searched"),
        ({"dpo_beta": "0.1, 0.3"}, "dpo_beta cannot be searched"),
        ({"train_router": "true, false", "train_experts": "true, false"}, "train_router needs train_experts"),
        ({"lora_rank": "8..999"}, "lora_rank cannot be 999"),
        ({"lora_rank": "0, 8"}, "lora_rank cannot be 0"),
        ({"lora_rank": "8"}, "at least two different values"),
        ({"lora_rank": [8, 8]}, "at least two different values"),
        ({"lora_rank": "8, 12.5"}, "lora_rank cannot be 12.5"),
        ({"lora_rank": "8.5..16"}, "takes whole numbers"),
        ({"learning_rate": "low..high"}, "is no range"),
        ({"learning_rate": "5e-4..1e-5"}, "goes from low to high"),
        ({"epochs": ""}, "epochs changes nothing while steps is 100"),
        ({"scheduler": ""}, "no usual range"),
        ({"scheduler": "linear, sideways"}, "scheduler cannot be 'sideways'"),
        ({"rslora": {"low": 0, "high": 1}}, "takes a list"),
        ({"lora_dropout": "0, 0.1"}, "lora_dropout must be 0 while train_experts is on"),
        ({"train_attention": "true, false", "train_experts": "true, false"}, "there is nothing to train"),
        ({"seed": list(range(1000)), "lora_rank": list(range(1, 200))}, "too much to search at once"),
    ],
)
def test_a_search_that_cannot_work_is_refused_by_name(asked: dict, said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace("?", r"\?")):
        resolve(**asked)


def test_values_that_go_together_only_in_some_corners_are_refused() -> None:
    with pytest.raises(RecipeError, match="min_learning_rate is above learning_rate"):
        resolve("execution-plan", learning_rate="1e-6..1e-4")
