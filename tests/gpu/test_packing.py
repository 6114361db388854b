"""On a GPU the attention is a kernel of its own: what it gives is what matrix products give."""

import copy
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

import services.trainer.unsloth_first  # noqa: F401, I001

from services.trainer import attention
from services.trainer.packing import Flat
from tests.unit.test_packing import made
from tests.unit.tiny_gpt_oss import tiny

pytestmark = pytest.mark.gpu
ROWS = made((50, 7, 130, 64, 1, 95, 33, 300, 515))


@pytest.fixture
def by_products(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        patch.setattr(attention, "_flex", attention._eager)
        yield patch


@pytest.mark.parametrize("dtype, rel", [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_loss_and_gradients_of_a_packed_row_are_those_of_matrix_products(
    dtype: torch.dtype, rel: float, by_products: pytest.MonkeyPatch
) -> None:
    reference, kernel = (copy.deepcopy(tiny()).cuda().to(dtype).train() for _ in range(2))
    for model in (reference, kernel):
        attention.install(model)
    expected = reference(**batch()).loss
    expected.backward()
    by_products.undo()
    loss = kernel(**batch()).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=rel)
    if dtype is torch.float32:
        theirs = dict(reference.named_parameters())
        for name, parameter in kernel.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5, msg=name)


def batch() -> dict[str, torch.Tensor]:
    return {name: values.cuda() for name, values in Flat(pad=0)(ROWS).items()}
