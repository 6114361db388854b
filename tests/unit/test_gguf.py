"""GGUF files are judged by llama.cpp itself: it must load them and answer as transformers does."""

import dataclasses
import errno
import json
import resource
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from services.trainer import gguf as writer
from services.trainer.gguf import write_gguf
from services.trainer.gguf_tensors import quantize_mxfp4
from tests.unit.tiny_gpt_oss import VOCAB, continuation, make_tokenizer, reference, save, served, tiny

MXFP4 = gguf.GGMLQuantizationType.MXFP4


@pytest.mark.parametrize(("encoding", "tolerance"), [("F16", 0.02), ("Q8_0", 0.2)])
def test_llama_cpp_continues_as_transformers_does(base: Path, tmp_path: Path, encoding: str, tolerance: float) -> None:
    report = write_gguf(base, tmp_path / "model.gguf", encoding, name="tiny")
    tokens, logprobs = continuation(report.path)
    expected, expected_logprobs = reference(tiny())
    assert tokens == expected
    assert abs(logprobs - expected_logprobs).max() < tolerance
    assert report.tensors[encoding].count == 2 + 2 * (4 + 3)
    assert report.fallbacks == {}


def test_llama_cpp_tokenizes_as_tokenizers_does(base: Path, tmp_path: Path) -> None:
    text = "<|start|>user<|message|>We've 1234 models, Größe 7\n\n  ok?<|end|>"
    with served(write_gguf(base, tmp_path / "model.gguf", "F16", name="tiny").path) as post:
        tokens = post("/tokenize", {"content": text, "parse_special": True})["tokens"]
    assert tokens == make_tokenizer().encode(text).ids


def test_metadata_names_the_model_and_pads_the_vocabulary(base: Path, tmp_path: Path) -> None:
    report = write_gguf(base, tmp_path / "model.gguf", "Q8_0", name="acme support")
    fields = {key: field.contents() for key, field in gguf.GGUFReader(report.path).fields.items()}
    assert fields["general.architecture"] == "gpt-oss"
    assert fields["general.name"] == "acme support"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert fields["gpt-oss.rope.scaling.type"] == "yarn"
    assert len(fields["tokenizer.ggml.tokens"]) == VOCAB
    assert fields["tokenizer.ggml.tokens"][-1] == "[PAD511]"
    assert fields["tokenizer.ggml.tokens"][fields["tokenizer.ggml.eos_token_id"]] == "<|return|>"
    assert fields["tokenizer.ggml.tokens"][fields["tokenizer.ggml.eot_token_id"]] == "<|return|>"


def test_shards_give_the_same_file_as_one(base: Path, tmp_path: Path) -> None:
    shards = save(tiny(), tmp_path / "shards", max_shard_size="100KB")
    assert (shards / "model.safetensors.index.json").exists()
    one = write_gguf(base, tmp_path / "one.gguf", "Q8_0", name="tiny")
    assert write_gguf(shards, tmp_path / "many.gguf", "Q8_0", name="tiny").sha256 == one.sha256


def test_mxfp4_takes_the_experts_and_nothing_else(base: Path, tmp_path: Path) -> None:
    report = write_gguf(base, tmp_path / "model.gguf", "MXFP4", name="tiny")
    reader = gguf.GGUFReader(report.path)
    assert {t.name.split(".")[2] for t in reader.tensors if t.tensor_type == MXFP4} == {
        "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
    }  # fmt: skip
    assert report.tensors["Q8_0"].count == 2 + 2 * 4
    assert report.bytes == report.path.stat().st_size
    experts, rest = 2 * 4 * 3 * 64 * 96, 2 * VOCAB * 64 + 2 * 2 * (128 + 64) * 64
    small = report.tensors["F32"].bytes / 4
    bits = 4.25 * experts + 8.5 * rest + 32 * small
    assert report.bits_per_weight == pytest.approx(bits / (experts + rest + small))
    assert len(continuation(report.path)[0]) == 8


def test_rows_that_do_not_divide_into_blocks_are_reported(tmp_path: Path) -> None:
    config = GptOssConfig(**tiny().config.to_dict() | {"intermediate_size": 48})
    directory = save(GptOssForCausalLM(config), tmp_path / "odd")
    report = write_gguf(directory, tmp_path / "model.gguf", "MXFP4", name="tiny")
    assert report.fallbacks == {f"blk.{layer}.ffn_down_exps.weight": "F16" for layer in (0, 1)}
    assert report.tensors["F16"].count == 2


def make_native(base: Path, directory: Path) -> tuple[Path, GptOssForCausalLM]:
    """A checkpoint with OpenAI's `_blocks` and `_scales`, and the model that transformers decodes from it."""
    torch.manual_seed(5)
    weights = load_file(base / "model.safetensors")
    decoded = {}
    for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, width, out = weights.pop(name).shape
        blocks = torch.randint(0, 256, (experts, out, width // 32, 16), dtype=torch.uint8)
        scales = torch.randint(122, 126, (experts, out, width // 32), dtype=torch.uint8)
        weights |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        decoded[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    save(tiny(), directory)
    save_file(weights, directory / "model.safetensors")
    native = GptOssForCausalLM(tiny().config).eval()
    native.load_state_dict(tiny().state_dict() | decoded)
    return directory, native


def test_native_mxfp4_is_repacked_without_a_change(base: Path, tmp_path: Path) -> None:
    directory, native = make_native(base, tmp_path / "native")
    report = write_gguf(directory, tmp_path / "model.gguf", "MXFP4", name="tiny")
    tensors = [tensor for tensor in gguf.GGUFReader(report.path).tensors if "_exps.weight" in tensor.name]
    held = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}
    for layer, block in enumerate(native.model.layers):
        gate_up, down = (p.mT.numpy() for p in (block.mlp.experts.gate_up_proj.data, block.mlp.experts.down_proj.data))
        assert np.array_equal(held[f"blk.{layer}.ffn_gate_exps.weight"], gate_up[:, 0::2])
        assert np.array_equal(held[f"blk.{layer}.ffn_up_exps.weight"], gate_up[:, 1::2])
        assert np.array_equal(held[f"blk.{layer}.ffn_down_exps.weight"], down)
    tokens, logprobs = continuation(report.path)
    expected, expected_logprobs = reference(native)
    assert tokens == expected
    assert abs(logprobs - expected_logprobs).max() < 0.15


def test_native_mxfp4_decodes_for_other_encodings(base: Path, tmp_path: Path) -> None:
    directory, native = make_native(base, tmp_path / "native")
    report = write_gguf(directory, tmp_path / "model.gguf", "F16", name="tiny")
    assert "MXFP4" not in report.tensors
    tokens, logprobs = continuation(report.path)
    expected, expected_logprobs = reference(native)
    assert tokens == expected
    assert abs(logprobs - expected_logprobs).max() < 0.02


def test_mxfp4_values_are_the_nearest() -> None:
    values = torch.randn(64, 128, generator=torch.Generator().manual_seed(1)) * 0.05
    ours = gguf.dequantize(quantize_mxfp4(values), MXFP4)
    llama_cpp = gguf.dequantize(gguf.quantize(values.numpy(), MXFP4), MXFP4)
    assert np.square(ours - values.numpy()).sum() < np.square(llama_cpp - values.numpy()).sum()
    assert np.array_equal(gguf.dequantize(quantize_mxfp4(torch.from_numpy(llama_cpp)), MXFP4), llama_cpp)
    assert not gguf.dequantize(quantize_mxfp4(torch.zeros(1, 32)), MXFP4).any()


@pytest.mark.parametrize("encoding", ["F16", "Q4_K_M"])
@pytest.mark.parametrize("limit", [2_000, 100_000], ids=["in the header", "in the data"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    base: Path, tmp_path: Path, limit: int, encoding: str
) -> None:
    out = tmp_path / "model.gguf"
    out.write_text("the model in use")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_gguf(base, out, encoding, name="tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert out.read_text() == "the model in use"


def test_a_full_disk_is_noticed_at_once(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = writer.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError) as caught:
        write_gguf(base, tmp_path / "model.gguf", "F16", name="tiny")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_tensors_without_a_place_are_refused(base: Path, tmp_path: Path) -> None:
    directory = tmp_path / "odd"
    directory.mkdir()
    (directory / "config.json").write_text((base / "config.json").read_text())
    weights = load_file(base / "model.safetensors")
    save_file(weights | {"model.layers.0.extra.weight": torch.zeros(2)}, directory / "model.safetensors")
    with pytest.raises(ValueError, match=r"layers\.0\.extra"):
        write_gguf(directory, tmp_path / "model.gguf", "F16", name="tiny")
    weights.pop("model.layers.1.self_attn.sinks")
    save_file(weights, directory / "model.safetensors")
    with pytest.raises(ValueError, match=r"no tensor model\.layers\.1\.self_attn\.sinks"):
        write_gguf(directory, tmp_path / "model.gguf", "F16", name="tiny")


def test_the_report_is_plain_data(base: Path, tmp_path: Path) -> None:
    report = write_gguf(base, tmp_path / "model.gguf", "MXFP4", name="tiny")
    assert json.loads(json.dumps(dataclasses.asdict(report), default=str))["tensors"]["MXFP4"]["count"] == 6
