"""Our kernels for adapters give what matrix products give. On a GPU: pytest -m gpu tests/gpu/test_lora_kernels.py

Where Triton is installed and there is no GPU, TRITON_INTERPRET=1 runs the same on the CPU.
"""

import os

import pytest
import torch

pytest.importorskip("triton")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from services.inference.vllm.lora_kernels import Blocks, Rows, expand, fits, shrink

pytestmark = pytest.mark.gpu
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
SLOTS, EXPERTS, PER_TOKEN = 3, 4, 2
SLOT_OF = [0, 2, -1, 1, 2, SLOTS, 0]  # none, and what padding may hold, among them
SMALL = Blocks(ranks=4, inputs=64, outputs=32)
OVERLAP = not INTERPRETED and torch.cuda.get_device_capability() >= (9, 0)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def noise(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def slots() -> torch.Tensor:
    return torch.tensor(SLOT_OF, dtype=torch.int32, device=DEVICE)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.float(), expected, rtol=1.6e-2, atol=1.6e-2)  # two roundings of bfloat16


@pytest.mark.parametrize("rank", [1, 8, 16, 64])
@pytest.mark.parametrize("blocks", [SMALL, Blocks(), Blocks(overlap=OVERLAP)], ids=["small", "default", "overlapping"])
def test_slices_of_different_widths_get_their_adapters_deltas(rank: int, blocks: Blocks) -> None:
    widths, inputs = [96, 40, 40], 200
    x, a = noise(len(SLOT_OF), inputs + 8)[:, :inputs], [noise(SLOTS, 1, rank, inputs) for _ in widths]  # rows apart
    b = [noise(SLOTS, 1, width, rank) for width in widths]
    out, narrow = noise(len(SLOT_OF), sum(widths)), torch.empty(len(a), len(SLOT_OF), rank, device=DEVICE)
    expected = out.float()
    for row, slot in enumerate(SLOT_OF):
        if 0 <= slot < SLOTS:
            deltas = [
                0.5 * B[slot, 0].float() @ (A[slot, 0].float() @ x[row].float()) for A, B in zip(a, b, strict=True)
            ]
            expected[row] += torch.cat(deltas)
    shrink(x, a, narrow, Rows(slots()), blocks, scale=0.5)
    expand(narrow, b, out, Rows(slots()), blocks)
    close(out, expected)


def experts_of_rows() -> torch.Tensor:
    return torch.randint(0, EXPERTS, (len(SLOT_OF) * PER_TOKEN,), dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("per_row", [False, True], ids=["a token's input", "a row's input"])
@pytest.mark.parametrize("routed", [False, True], ids=["unweighted", "weighted"])
def test_a_row_gets_the_delta_of_its_expert_where_its_adapter_has_experts(per_row: bool, routed: bool) -> None:
    rank, inputs, outputs, count = 16, 200, 96, len(SLOT_OF) * PER_TOKEN
    x, a, b = (
        noise(count if per_row else len(SLOT_OF), inputs),
        noise(SLOTS, EXPERTS, rank, inputs),
        noise(SLOTS, EXPERTS, outputs, rank),
    )
    enabled = torch.tensor([1, 0, 1, 0], dtype=torch.int32, device=DEVICE)
    rows = Rows(slots(), experts_of_rows(), enabled, PER_TOKEN)
    weights = torch.rand(count, device=DEVICE) if routed else None
    out, narrow = noise(count, outputs), torch.empty(1, count, rank, device=DEVICE)
    expected = out.float()
    for row in range(count):
        slot, expert = SLOT_OF[row // PER_TOKEN], rows.experts[row]
        if 0 <= slot < SLOTS and enabled[slot]:
            value = x[row if per_row else row // PER_TOKEN].float()
            delta = b[slot, expert].float() @ (a[slot, expert].float() @ value)
            expected[row] += delta * (weights[row] if routed else 1)
    shrink(x, [a], narrow, rows, SMALL)
    expand(narrow, [b], out, rows, SMALL, weights)
    close(out, expected)


def test_what_is_narrow_is_zero_for_a_row_without_adapter() -> None:
    narrow = torch.full((1, len(SLOT_OF), 8), 7.0, device=DEVICE)
    shrink(noise(len(SLOT_OF), 64), [noise(SLOTS, 1, 8, 64)], narrow, Rows(slots()), SMALL)
    without = [not 0 <= slot < SLOTS for slot in SLOT_OF]
    assert (narrow[0] == 0).all(1).tolist() == without


def test_set_instead_of_added_a_row_without_adapter_stays_as_it_is() -> None:
    narrow, b = noise(1, len(SLOT_OF), 8, dtype=torch.float32), noise(SLOTS, 1, 64, 8)
    out = torch.full((len(SLOT_OF), 64), 7.0, dtype=torch.bfloat16, device=DEVICE)
    expand(narrow, [b], out, Rows(slots()), SMALL, add=False)
    for row, slot in enumerate(SLOT_OF):
        close(
            out[row],
            b[slot, 0].float() @ narrow[0, row] if 0 <= slot < SLOTS else torch.full((64,), 7.0, device=DEVICE),
        )


def test_ranks_that_are_no_power_of_two_or_too_large_are_not_ours() -> None:
    assert [rank for rank in (1, 8, 16, 32, 64, 128, 256, 320, 512) if fits(rank)] == [1, 8, 16, 32, 64]
