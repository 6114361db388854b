"""A base read with an adapter added to it is the model that PEFT merges, whatever the base is stored as."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GptOssForCausalLM

from services.trainer.gguf import write_gguf
from services.trainer.gguf_tensors import Checkpoint
from services.trainer.lora import read_pairs
from services.trainer.merged import Merged, write_merged
from tests.unit.test_gguf import make_native
from tests.unit.tiny_adapter import make_adapter
from tests.unit.tiny_gpt_oss import continuation, reference, tiny


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> GptOssForCausalLM:
    """What PEFT merges of the same adapter."""
    return make_adapter(tmp_path_factory.mktemp("again"))


def config() -> dict:
    return tiny().config.to_dict()


def test_every_tensor_equals_pefts_merge(base: Path, adapter: Path, merged: GptOssForCausalLM) -> None:
    view = Merged(Checkpoint(base), read_pairs(adapter, config()))
    expected = merged.state_dict()
    assert view.names() == set(expected)
    for name, tensor in expected.items():
        found = torch.cat([view.rows(name, i, i + 1) for i in range(view.shape(name)[0])])
        assert found.shape == tensor.shape == view.shape(name)
        torch.testing.assert_close(found.float(), tensor.float(), atol=1e-5, rtol=1e-5)
    moved = [name for name in expected if not torch.equal(expected[name], tiny().state_dict()[name])]
    assert sum(".experts." in name for name in moved) == 4 and sum(".self_attn." in name for name in moved) == 8


def test_gguf_of_the_adapter_answers_as_the_merged_model(
    base: Path, adapter: Path, merged: GptOssForCausalLM, tmp_path: Path
) -> None:
    view = Merged(Checkpoint(base), read_pairs(adapter, config()))
    tokens, logprobs = continuation(write_gguf(base, tmp_path / "m.gguf", "F16", name="m", weights=view).path)
    expected, expected_logprobs = reference(merged)
    assert tokens == expected != reference(tiny())[0]
    assert abs(logprobs - expected_logprobs).max() < 0.02


def test_merged_shards_load_as_the_merged_model(
    base: Path, adapter: Path, merged: GptOssForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.trainer.merged.SHARD_BYTES", 60_000)
    view = Merged(Checkpoint(base), read_pairs(adapter, config()), dense=True)
    write_merged(view, base, tmp_path / "out", lambda: None)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.bfloat16 and (tmp_path / "out" / "tokenizer.json").exists()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name].float(), tensor.float(), atol=0.02, rtol=0.01)


def test_native_experts_are_decoded_where_they_change(base: Path, adapter: Path, tmp_path: Path) -> None:
    native, decoded = make_native(base, tmp_path / "native")
    pairs = read_pairs(adapter, config())
    view = Merged(Checkpoint(native), pairs)
    assert not [name for name in view.names() if name.endswith(("_blocks", "_scales"))]
    for layer, block in enumerate(decoded.model.layers):
        for parameter in ("gate_up_proj", "down_proj"):
            name = f"model.layers.{layer}.mlp.experts.{parameter}"
            pair = pairs[name]
            delta = pair.scale * (pair.b @ pair.a).mT
            torch.testing.assert_close(view.rows(name, 0, 4), getattr(block.mlp.experts, parameter) + delta)


def test_native_experts_that_do_not_change_keep_their_blocks(base: Path, adapter: Path, tmp_path: Path) -> None:
    native, _ = make_native(base, tmp_path / "native")
    attention = {name: pair for name, pair in read_pairs(adapter, config()).items() if ".self_attn." in name}
    view = Merged(Checkpoint(native), attention)
    blocks = load_file(native / "model.safetensors")["model.layers.0.mlp.experts.down_proj_blocks"]
    assert torch.equal(view.rows("model.layers.0.mlp.experts.down_proj_blocks", 0, 4), blocks)
    dense = Merged(Checkpoint(native), attention, dense=True)
    assert "model.layers.0.mlp.experts.down_proj" in dense.names()


def test_an_adapter_of_another_base_is_refused(base: Path, adapter: Path) -> None:
    pairs = read_pairs(adapter, config())
    pair = next(iter(pairs.values()))
    with pytest.raises(ValueError, match=r"layers\.9"):
        Merged(Checkpoint(base), {"model.layers.9.self_attn.q_proj.weight": pair})


def test_a_config_that_named_a_quantisation_names_none(base: Path, adapter: Path, tmp_path: Path) -> None:
    native, _ = make_native(base, tmp_path / "native")
    view = Merged(Checkpoint(native), read_pairs(adapter, config()), dense=True)
    write_merged(view, native, tmp_path / "out", lambda: None)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
