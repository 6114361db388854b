"""Which engine answers, by what is asked for, what is installed, the checkpoint and the GPU; and what vLLM takes of it."""

import json
import shutil
from pathlib import Path

import pytest

from services.inference.choice import Choice, Impossible, choose
from services.inference.vllm.room import WORKING_BYTES, Card, Needs, bytes_per_adapter, bytes_per_token
from services.inference.vllm.start import graphs, ranks
from shared import registry
from shared.settings import Settings
from shared.store import Store
from tests.conftest import BASE
from tests.unit.test_registry import card
from tests.unit.tiny_adapter import make_adapter

GIB = 1 << 30
NATIVE = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}
GPT_OSS_20B = {
    "num_hidden_layers": 24, "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 32,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
RTX_3090 = Card(1, (8, 6), 24 * GIB, 23 * GIB)


def chosen(asked: str = "auto", config: dict = NATIVE, **more) -> Choice:
    return choose(asked, config, **{"installed": True, "card": RTX_3090, "needed": 20 * GIB, **more})


def test_vllm_answers_where_there_is_a_gpu_for_it() -> None:
    assert chosen().engine == "vllm"
    assert chosen(config={"model_type": "gpt_oss"}).engine == "vllm", "a checkpoint in 16 bits"
    assert chosen("vllm") == Choice("vllm", "TANDEM_ENGINE says so.")


def test_unsloth_answers_where_it_is_asked_for_whatever_there_is() -> None:
    assert chosen("unsloth") == Choice("unsloth", "TANDEM_ENGINE says so.")
    assert chosen("unsloth", installed=False, card=None).engine == "unsloth"


AGAINST = [
    ({"installed": False}, "not installed"),
    ({"card": None}, "no CUDA GPU"),
    ({"card": Card(1, (7, 5), 24 * GIB, 23 * GIB)}, "needs compute capability 8.0, and this GPU has 7.5"),
    ({"config": {"model_type": "llama"}}, "type 'llama'"),
    ({"config": NATIVE | {"quantization_config": {"quant_method": "bitsandbytes"}}}, "Set TANDEM_BASE_MODEL"),
    ({"config": NATIVE | {"quantization_config": {"quant_method": "gptq"}}}, "a form of its own"),
    (
        {"needed": 23.5 * GIB},
        "needs 23.5 GiB of the GPU and 23.0 GiB are free. Free some, or lower TANDEM_CACHED_TOKENS",
    ),
]


@pytest.mark.parametrize(("there", "reason"), AGAINST, ids=[reason for _, reason in AGAINST])
def test_where_vllm_cannot_be_unsloth_answers_and_says_why_and_who_insists_is_told(there: dict, reason: str) -> None:
    choice = chosen(**there)
    assert choice.engine == "unsloth" and reason in choice.why
    with pytest.raises(Impossible, match="TANDEM_ENGINE is vllm, but") as refused:
        chosen("vllm", **there)
    assert reason in str(refused.value)


def test_what_is_not_known_of_the_memory_decides_nothing() -> None:
    assert chosen(card=Card(1, (9, 0), 140 * GIB, None)).engine == "vllm"


def test_a_token_of_gpt_oss_20b_takes_48_kib_and_an_adapter_twice_its_parameters() -> None:
    assert bytes_per_token(GPT_OSS_20B) == 48 << 10
    assert bytes_per_adapter(GPT_OSS_20B, rank=8) == 2 * 92_454_912, "what PEFT counts for attention and experts"


@pytest.fixture
def needs(tmp_path: Path) -> Needs:
    (tmp_path / "config.json").write_text(json.dumps(GPT_OSS_20B))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(13 * GIB)
    settings = Settings(data=tmp_path, hf_home=tmp_path, redis_url="redis://none/0", cached_tokens=32768)
    return Needs(tmp_path, settings, [8, 16])


def test_as_many_adapters_have_a_place_on_the_gpu_as_fit_and_never_less_than_one(needs: Needs) -> None:
    assert needs.least == 13 * GIB + 32768 * (48 << 10) + WORKING_BYTES + needs.adapter
    assert needs.places(None) == needs.places(24 * GIB) == 8, "as many as are kept"
    assert needs.places(needs.least + 2 * needs.adapter) == 3
    assert needs.places(needs.least) == 1
    assert needs.bytes(24 * GIB) == needs.least + 7 * needs.adapter


def test_gpus_share_weights_cache_and_adapters(tmp_path: Path, needs: Needs) -> None:
    settings = Settings(data=tmp_path, hf_home=tmp_path, redis_url="redis://none/0", cached_tokens=32768)
    both = Needs(tmp_path, settings, [8, 16], gpus=2)
    assert both.least - WORKING_BYTES == (needs.least - WORKING_BYTES) // 2


@pytest.mark.parametrize("sequences", [1, 3, 8, 32, 100, 128, 2000])
def test_each_step_of_decoding_has_a_graph_that_is_little_larger(sequences: int) -> None:
    sizes = graphs(sequences)
    assert sizes == sorted(set(sizes)) and sequences in sizes and len(sizes) < 20 + sequences // 8
    for tokens in range(1, sequences + 1):
        assert min(size for size in sizes if size >= tokens) - tokens < 8


def test_room_is_made_for_the_adapters_of_this_base_as_their_files_say(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    for name, base, rank in (("house", BASE, 32), ("other", "openai/gpt-oss-120b", 256)):
        make_adapter(tmp_path / name, rank=rank, parameters=[])
        with store.staging(store.adapters()) as staged:
            shutil.copytree(tmp_path / name, staged, dirs_exist_ok=True)
            registry.publish_adapter(store, staged, {**card(name), "base_model": base})
    assert ranks(settings) == [32]
