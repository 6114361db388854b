"""The types of a mixture are llama.cpp's own, and llama.cpp answers from them."""

from pathlib import Path
from typing import ClassVar

import gguf
import pytest
import torch
from transformers import GptOssForCausalLM

from services.dashboard.views.encodings import TOKENIZER_BYTES, estimated_bytes
from services.trainer.gguf import write_gguf
from services.trainer.gguf_tensors import EXPERTS, LAYER, TOP, model_tensors
from services.trainer.gguf_types import FILE_TYPES, K_QUANTS, Mixture
from tests.unit.tiny_gpt_oss import continuation, reference, save, tiny

LAYERS = range(24)  # of gpt-oss-20b
MORE = {0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23}  # the layers in which llama-quantize spends more bits


def types(encoding: str, name: str, width: int) -> list[str]:
    """The type of `blk.N.NAME` in each of 24 layers."""
    mixture = Mixture(encoding, len(LAYERS))
    return [mixture.types(f"blk.{layer}.{name}", width)[0].name for layer in LAYERS]


@pytest.mark.parametrize("name", ["attn_v.weight", "ffn_down_exps.weight"])
def test_a_mixture_spends_more_bits_where_llama_cpp_does(name: str) -> None:
    assert types("Q4_K_M", name, 256) == ["Q6_K" if layer in MORE else "Q4_K" for layer in LAYERS]
    assert types("Q5_K_M", name, 256) == ["Q6_K" if layer in MORE else "Q5_K" for layer in LAYERS]
    first = 4 if "attn_v" in name else 3
    assert types("Q4_K_S", name, 256) == ["Q5_K" if layer < first else "Q4_K" for layer in LAYERS]
    assert set(types("Q6_K", name, 256)) == {"Q6_K"}


def test_the_other_matrices_have_the_encodings_own_type() -> None:
    for encoding, kind in K_QUANTS.items():
        for name in (
            "attn_q.weight",
            "attn_k.weight",
            "attn_output.weight",
            "ffn_up_exps.weight",
            "ffn_gate_exps.weight",
        ):
            assert set(types(encoding, name, 256)) == {kind.name}
        assert Mixture(encoding, 24).types("token_embd.weight", 256)[0] == kind
        assert Mixture(encoding, 24).types("output.weight", 256)[0].name == "Q6_K"


@pytest.mark.parametrize("encoding", FILE_TYPES)
def test_norms_sinks_routers_and_biases_stay_in_32_bits(encoding: str) -> None:
    for name in ("attn_norm.weight", "attn_sinks.weight", "ffn_gate_inp.weight", "attn_q.bias", "ffn_down_exps.bias"):
        assert set(types(encoding, name, 256)) == {"F32"}


def test_rows_of_gpt_oss_fall_back_to_blocks_of_32() -> None:
    assert set(types("Q4_K_M", "ffn_up_exps.weight", 2880)) == {"Q5_0"}
    assert types("Q4_K_M", "ffn_down_exps.weight", 2880) == ["Q8_0" if layer in MORE else "Q5_0" for layer in LAYERS]
    assert set(types("Q5_K_M", "attn_q.weight", 2880)) == {"Q5_1"}
    assert set(types("Q4_K_M", "attn_output.weight", 4096)) == {"Q4_K"}
    assert set(types("Q6_K", "attn_output.weight", 48)) == {"F16"}


class Shapes:
    """gpt-oss-20b without a value in it."""

    config: ClassVar = {"num_hidden_layers": 24, "num_local_experts": 32}

    def __init__(self) -> None:
        width, vocabulary, experts = 2880, 201088, 32
        layer = {
            "input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,), "self_attn.sinks": (64,),
            "mlp.router.weight": (experts, width), "mlp.router.bias": (experts,),
            "mlp.experts.gate_up_proj": (experts, width, 2 * width), "mlp.experts.gate_up_proj_bias": (experts, 2 * width),
            "mlp.experts.down_proj": (experts, width, width), "mlp.experts.down_proj_bias": (experts, width),
        }  # fmt: skip
        for name, out, into in (("q", 4096, width), ("k", 512, width), ("v", 512, width), ("o", width, 4096)):
            layer |= {f"self_attn.{name}_proj.weight": (out, into), f"self_attn.{name}_proj.bias": (out,)}
        self.shapes = {f"model.layers.{n}.{name}": shape for n in LAYERS for name, shape in layer.items()}
        embedding = (vocabulary, width)
        self.shapes |= {
            "model.embed_tokens.weight": embedding,
            "lm_head.weight": embedding,
            "model.norm.weight": (width,),
        }

    def names(self) -> set[str]:
        return set(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]


@pytest.mark.parametrize("encoding", FILE_TYPES)
def test_the_size_that_the_form_shows_is_that_of_gpt_oss_20b(encoding: str) -> None:
    tensors = model_tensors(Shapes(), Shapes.config, encoding)
    experts = sum(tensor.elements for tensor in tensors if tensor.name.endswith("_exps.weight"))
    told = estimated_bytes(encoding, sum(tensor.elements for tensor in tensors), experts) - TOKENIZER_BYTES
    assert told == pytest.approx(sum(tensor.nbytes for tensor in tensors), rel=0.005)


@pytest.fixture(scope="module", params=[64, 256])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    return request.param, save(tiny(request.param), tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("encoding", K_QUANTS)
def test_llama_cpp_answers_from_the_values_that_were_written(
    base: tuple[int, Path], tmp_path: Path, encoding: str
) -> None:
    width, folder = base
    report = write_gguf(folder, tmp_path / "model.gguf", encoding, name="tiny")
    tokens, logprobs = continuation(report.path)
    expected, expected_logprobs = reference(decoded(report.path, width))
    assert tokens == expected
    assert abs(logprobs - expected_logprobs).max() < 0.2
    if width == 256:
        assert report.fallbacks == {} and report.fallback_share == 0 and "Q6_K" in report.tensors
    else:
        assert "_K" not in "".join(report.tensors) and report.fallback_share > 0.9


def decoded(path: Path, width: int) -> GptOssForCausalLM:
    """The model of `width` with the values of a GGUF file."""
    found = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    held = {name: torch.from_numpy(values.copy()) for name, values in found.items()}
    state = {theirs: held[ours] for theirs, ours in TOP.items()}
    for layer in range(2):
        ours, theirs = f"blk.{layer}", f"model.layers.{layer}"
        state |= {f"{theirs}.{name}": held[f"{ours}.{called}"] for name, called in LAYER.items()}
        for parameter, parts in EXPERTS.items():
            shape = tiny(width).state_dict()[f"{theirs}.mlp.experts.{parameter}"].shape
            weight, bias = torch.empty(shape), torch.empty(shape[0], shape[2])
            for part, rows in parts.items():
                weight[..., rows] = held[f"{ours}.{part}.weight"].mT
                bias[:, rows] = held[f"{ours}.{part}.bias"]
            state |= {f"{theirs}.mlp.experts.{parameter}": weight, f"{theirs}.mlp.experts.{parameter}_bias": bias}
    model = GptOssForCausalLM(tiny(width).config).eval()
    model.load_state_dict(state)
    return model
