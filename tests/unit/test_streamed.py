"""A model read a layer at a time answers as it does in one piece, and never has two layers in memory."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.trainer.child import Refused
from services.trainer.streamed import Streamed, empty_model
from tests.unit.tiny_gpt_oss import PROMPT, make_tokenizer, save, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny(), tmp_path_factory.mktemp("merged"))


def test_places_of_unequal_texts_are_read_as_by_the_whole_model(folder: Path) -> None:
    prompts, answers = [PROMPT, PROMPT[:9]], [[5, 6, 7], [8, 9]]
    with Streamed(folder) as model:
        read = model.read(prompts, answers, top=400)
    assert [len(places) for places in read] == [3, 2]
    for prompt, answer, places in zip(prompts, answers, read, strict=True):
        with torch.no_grad():
            logits = tiny()(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
        for expected, place in zip(logits.log_softmax(-1), places, strict=True):
            assert len(place) == 400
            told = torch.tensor(list(place.values()))
            assert (expected[list(place)] - told).abs().max() < 0.25, "16 bits in each layer"
            assert torch.nn.functional.cosine_similarity(expected[list(place)].exp(), told.exp(), dim=0) > 0.99


def test_one_layer_is_in_memory_at_a_time(folder: Path) -> None:
    model = empty_model(folder)
    held: list[set[str]] = []

    def look(*_: object) -> None:
        held.append({name.rsplit(".self_attn")[0] for name, p in model.named_parameters() if p.device.type != "meta"})

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(look)
    with torch.inference_mode():
        model.model(input_ids=torch.tensor([PROMPT]), use_cache=False)
    assert [{name.split(".")[2] for name in names} for names in held] == [{"0"}, {"1"}]
    assert not [name for name, parameter in model.named_parameters() if parameter.device.type != "meta"]


def test_weights_that_are_not_whole_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "merged")
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.self_attn.sinks"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match="could not read the merged weights"):
        Streamed(broken).read([PROMPT], [[5]], top=1)


def test_a_tokenizer_that_reads_otherwise_is_seen(folder: Path) -> None:
    ids = make_tokenizer().encode("We read it in the same way.<|end|>").ids
    assert Streamed(folder).same_tokens([ids])
    letters = [make_tokenizer().encode(letter).ids[0] for letter in "same"]
    assert not Streamed(folder).same_tokens([ids, letters]), "the tokenizer joins letters"
