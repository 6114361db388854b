"""Rows that ggml quantises a piece at a time are the bytes of one call, and come back as near as the type allows."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GGMLType

from services.trainer import ggml
from services.trainer.gguf_tensors import encode

# root of the mean square error of normal values against their deviation; blocks of 256 or 32 values, no importance matrix
ERRORS = {"Q4_K": 0.075, "Q5_K": 0.04, "Q6_K": 0.02, "Q5_0": 0.045, "Q5_1": 0.04, "Q8_0": 0.006}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((48, 512), dtype=np.float32) * 0.05


@pytest.mark.parametrize(("kind", "error"), ERRORS.items())
def test_pieces_are_one_call_and_values_come_back(rows: np.ndarray, kind: str, error: float) -> None:
    whole = ggml.quantize(rows, GGMLType[kind])
    pieces = [encode("blk.0.attn_q.weight", torch.from_numpy(rows[i : i + 7]), GGMLType[kind]) for i in range(0, 48, 7)]
    assert np.array_equal(np.concatenate(pieces), whole)
    back = gguf.dequantize(whole, GGMLType[kind])
    assert np.sqrt(np.square(back - rows).mean()) < error * rows.std()


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1", "Q8_0"])
def test_types_that_gguf_knows_are_its_bytes(rows: np.ndarray, kind: str) -> None:
    assert np.array_equal(ggml.quantize(rows, GGMLType[kind]), gguf.quantize(rows, GGMLType[kind]))


def test_rows_that_do_not_divide_into_blocks_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="256"):
        ggml.quantize(rows[:, :96], GGMLType.Q4_K)


def test_a_value_that_is_not_finite_is_refused(rows: np.ndarray) -> None:
    broken = torch.from_numpy(rows.copy())
    broken[3, 3] = torch.inf
    with pytest.raises(ValueError, match=r"blk\.0\.attn_q\.weight has values that are not finite as Q4_K"):
        encode("blk.0.attn_q.weight", broken, GGMLType.Q4_K)
