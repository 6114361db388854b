"""How many threads llama.cpp is given: it must never need all cores at once where there are many."""

import pytest

from shared.llama_server import threads


@pytest.mark.parametrize("cores, many", [(1, 1), (2, 2), (4, 3), (8, 6), (16, 12), (32, 16), (128, 16)])
def test_some_cores_are_left_to_others(cores: int, many: int) -> None:
    assert threads(cores) == many
