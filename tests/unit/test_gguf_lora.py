"""A LoRA GGUF on the base model must answer as the merged model does."""

import json
import resource
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from services.trainer.gguf import write_gguf, write_lora_gguf
from tests.unit.test_gguf import make_native
from tests.unit.tiny_adapter import PARAMETERS, make_adapter
from tests.unit.tiny_gpt_oss import continuation, reference, tiny


def test_the_lora_file_on_the_base_answers_as_the_merged_model(base: Path, tmp_path: Path) -> None:
    merged = make_adapter(tmp_path / "adapter")
    lora = write_lora_gguf(tmp_path / "adapter", tiny().config.to_dict(), tmp_path / "lora.gguf")
    file = write_gguf(base, tmp_path / "base.gguf", "F16", name="tiny").path
    tokens, logprobs = continuation(file, lora.path)
    expected, expected_logprobs = reference(merged)
    assert tokens == expected
    assert abs(logprobs - expected_logprobs).max() < 0.02
    assert tokens != reference(tiny())[0]
    assert set(lora.tensors) == {"F32"}


def test_the_lora_file_answers_on_native_experts_too(base: Path, tmp_path: Path) -> None:
    # not on the routers: what Q8_0 takes from attention may choose other experts, and then the answers part
    make_adapter(tmp_path / "adapter", parameters=PARAMETERS[:2])
    directory, native = make_native(base, tmp_path / "native")
    lora = write_lora_gguf(tmp_path / "adapter", tiny().config.to_dict(), tmp_path / "lora.gguf")
    file = write_gguf(directory, tmp_path / "base.gguf", "MXFP4", name="tiny").path
    tokens, logprobs = continuation(file, lora.path)
    merged = PeftModel.from_pretrained(native, tmp_path / "adapter").merge_and_unload()
    expected, expected_logprobs = reference(merged)
    assert tokens == expected
    assert abs(logprobs - expected_logprobs).max() < 0.2


def test_a_lora_that_the_disk_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    make_adapter(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_lora_gguf(tmp_path / "adapter", tiny().config.to_dict(), tmp_path / "out" / "lora.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
def test_expert_deltas_equal_pefts(tmp_path: Path, transposed: bool, rslora: bool) -> None:
    merged = make_adapter(tmp_path / "adapter", transposed=transposed, use_rslora=rslora)
    report = write_lora_gguf(tmp_path / "adapter", tiny().config.to_dict(), tmp_path / "lora.gguf")
    reader = gguf.GGUFReader(report.path)
    held = {tensor.name: tensor.data for tensor in reader.tensors}
    alpha = reader.fields["adapter.lora.alpha"].contents()

    def delta(name: str) -> np.ndarray:
        return alpha / 4 * held[f"{name}.weight.lora_b"] @ held[f"{name}.weight.lora_a"]

    for layer, (block, old_block) in enumerate(zip(merged.model.layers, tiny().model.layers, strict=True)):
        new, old = block.mlp.experts, old_block.mlp.experts
        gate_up = (new.gate_up_proj - old.gate_up_proj).detach().mT.numpy()
        down = (new.down_proj - old.down_proj).detach().mT.numpy()
        assert np.allclose(delta(f"blk.{layer}.ffn_gate_exps"), gate_up[:, 0::2], atol=1e-5)
        assert np.allclose(delta(f"blk.{layer}.ffn_up_exps"), gate_up[:, 1::2], atol=1e-5)
        assert np.allclose(delta(f"blk.{layer}.ffn_down_exps"), down, atol=1e-5)


def write_adapter(directory: Path, widths: tuple[int, int], parameter: str, **extra: object) -> Path:
    """An adapter on one expert parameter of layer 0 with (in, out) = `widths`, four experts, rank 2."""
    directory.mkdir()
    key = "base_model.tiny().model.layers.0.mlp.experts.lora_{}.weight"
    weights = {key.format("A"): torch.ones(8, widths[0]), key.format("B"): torch.ones(widths[1], 8)}
    save_file(weights, directory / "adapter_model.safetensors")
    config = {"lora_alpha": 4, "target_parameters": [f"mlp.experts.{parameter}"]} | extra
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("inter", "widths", "parameter", "extra", "message"),
    [
        (32, (64, 64), "gate_up_proj", {}, "two ways"),
        (64, (64, 64), "down_proj", {}, "two ways"),
        (96, (64, 100), "gate_up_proj", {}, "do not fit"),
        (96, (64, 192), "down_proj", {}, "targets"),
        (96, (64, 192), "gate_up_proj", {"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        (96, (64, 192), "gate_up_proj", {"lora_B_layout": "grouped_by_expert"}, "packed"),
    ],
)
def test_an_adapter_that_cannot_be_read_one_way_is_refused(
    tmp_path: Path, inter: int, widths: tuple[int, int], parameter: str, extra: dict, message: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", widths, parameter, **extra)
    with pytest.raises(ValueError, match=message):
        write_lora_gguf(adapter, tiny().config.to_dict() | {"intermediate_size": inter}, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()
