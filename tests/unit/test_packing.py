"""Examples in one row have the loss and the gradients that they have alone."""

import copy
import random
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.attention.flex_attention import create_block_mask
from transformers import GptOssForCausalLM

from services.trainer import attention
from services.trainer.packing import Flat, pack
from tests.unit.tiny_gpt_oss import VOCAB, tiny

LENGTHS = (50, 7, 130, 64, 1, 95, 33)


def made(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, Any]]:
    """Examples of random tokens whose second half is supervised."""
    chance = random.Random(5)
    rows = []
    for length in lengths:
        ids = [chance.randrange(400) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    return rows


def fresh() -> GptOssForCausalLM:
    """The tiny model in fp32; its window of 16 tokens is shorter than most examples."""
    return copy.deepcopy(tiny()).float().train()


def alone(model: GptOssForCausalLM, rows: list[dict[str, Any]]) -> torch.Tensor:
    """transformers' own loss, one example at a time, over all supervised tokens."""
    losses, count = [], 0
    for row in rows:
        supervised = sum(label != -100 for label in row["labels"][1:])
        if supervised:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            losses.append(model(input_ids=ids, labels=labels).loss * supervised)
            count += supervised
    return torch.stack(losses).sum() / count


@pytest.mark.parametrize("packed", [False, True], ids=["one after the other", "packed"])
def test_loss_and_gradients_are_those_of_each_example_alone(packed: bool) -> None:
    rows, reference, joined = made(), fresh(), fresh()
    attention.install(joined)
    expected = alone(reference, rows)
    expected.backward()
    batch = Flat(pad=0)(list(pack(Dataset.from_list(rows), 160)) if packed else rows)
    loss = joined(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = dict(reference.named_parameters())
    for name, parameter in joined.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-6, msg=name)


def test_without_it_joined_examples_see_each_other() -> None:
    """What the test above would miss if positions alone kept examples apart."""
    rows, model = made(), fresh()
    loss = model(**Flat(pad=0)(rows)).loss
    assert loss.item() != pytest.approx(alone(model, rows).item(), rel=1e-3)


def test_a_row_holds_whole_examples_and_as_few_rows_as_they_need() -> None:
    rows = made(tuple(random.Random(1).randrange(1, 200) for _ in range(300)))
    packed = pack(Dataset.from_list(rows), 256)
    tokens = sum(len(row["input_ids"]) for row in rows)
    assert max(len(row["input_ids"]) for row in packed) <= 256
    assert len(packed) <= 1.03 * tokens / 256 + 1
    found = []
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            found.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
        assert start == len(row["input_ids"])
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in rows)


def test_padding_at_the_end_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, model = made((40, 30)), fresh()
    attention.install(model)
    plain = Flat(pad=VOCAB - 1)(rows)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    padded = Flat(pad=VOCAB - 1)(rows)
    monkeypatch.undo()
    assert padded["input_ids"].shape == (1, 128)
    assert model(**padded).loss.item() == pytest.approx(model(**plain).loss.item(), rel=1e-6)


def test_generation_is_what_it_was() -> None:
    model, installed = fresh().eval(), fresh().eval()
    attention.install(installed)
    ids = torch.tensor([made((20,))[0]["input_ids"]])
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert installed.generate(ids, **settings).tolist() == model.generate(ids, **settings).tolist()


@pytest.mark.parametrize("window", [None, 128, 16, 200])
@pytest.mark.parametrize("lengths", [(1024,), (1, 127, 128, 300, 84), (50, 7, 130, 64, 1, 95, 33, 300, 515), (40,)])
def test_the_mask_in_blocks_is_the_mask(window: int | None, lengths: tuple[int, ...]) -> None:
    positions = torch.tensor([[place for length in lengths for place in range(length)]])
    total = sum(lengths)
    mask = attention.block_mask(positions, window)

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
        return attention.dense_mask(positions, window)[b, q, k]

    theirs = create_block_mask(sees, 1, None, total, total, device="cpu")
    assert torch.equal(mask.to_dense(), theirs.to_dense())
    assert torch.equal(mask.full_kv_num_blocks, theirs.full_kv_num_blocks)
    for row, many in enumerate(mask.full_kv_num_blocks[0, 0].tolist()):
        ours, others = mask.full_kv_indices[0, 0, row, :many], theirs.full_kv_indices[0, 0, row, :many]
        assert torch.equal(ours, others)
    at = torch.arange(total)
    seen = mask.mask_mod(torch.tensor(0), torch.tensor(0), at[:, None], at)
    assert torch.equal(seen, attention.dense_mask(positions, window)[0])
