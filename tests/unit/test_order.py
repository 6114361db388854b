"""The order in which a run sees its examples."""

from datasets import Dataset

from services.trainer.order import in_order
from shared import recipes

LENGTHS = [5, 90, 11, 70, 8, 60, 30, 31, 64, 2]


def seen(steps: int, **values: object) -> list[int]:
    """The lengths of the examples in their order; no two examples have the same."""
    dataset = Dataset.from_dict({"input_ids": [list(range(length)) for length in LENGTHS]})
    recipe = recipes.resolve("tiny", {"batch_size": 1, "accumulation": 2, **values})
    return [len(ids) for ids in in_order(dataset, recipe, steps)["input_ids"]]


def test_each_pass_sees_every_example_once_in_an_order_of_its_own() -> None:
    order = seen(10)
    assert sorted(order[:10]) == sorted(order[10:]) == sorted(LENGTHS)
    assert order[:10] != order[10:]


def test_the_order_is_the_seeds_and_a_longer_run_begins_as_a_shorter_one() -> None:
    assert seen(10) == seen(10) == seen(30)[:20]
    assert seen(10) != seen(10, seed=1)


def test_gpus_do_not_change_it() -> None:
    assert seen(10, gpus=2) == seen(10)
