"""The form that the base goes into memory in, what training will need, and the nearest recipe that needs no more."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from services.trainer import footprint
from services.trainer.child import Context, Refused
from services.trainer.footprint import Footprint
from shared import hub, memory, recipes, runs
from shared.memory import Planner
from shared.schemas import Job, Recipe
from shared.settings import Settings
from shared.store import Store
from shared.weights import SPLIT, Choice, Form, WrongForm, choose
from tests.unit.tiny_gpt_oss import tiny

NATIVE = {"quantization_config": {"quant_method": "mxfp4"}}
NF4 = {"quantization_config": {"quant_method": "bitsandbytes"}}


@pytest.mark.parametrize(
    "config, precision, machine, form",
    [
        (NATIVE, "auto", {"on_gpu": True, "capability": (8, 6)}, "mxfp4"),
        (NATIVE, "auto", {"on_gpu": True}, "mxfp4"),
        (NATIVE, "bf16", {"on_gpu": True, "capability": (9, 0)}, "bf16"),
        (NATIVE, "auto", {"on_gpu": False}, "fp32"),
        (NF4, "auto", {"on_gpu": True, "capability": (7, 5)}, "nf4"),
        ({}, "auto", {"on_gpu": True, "parameters": 21e9, "memory": 24 << 30}, "nf4"),
        ({}, "auto", {"on_gpu": True, "parameters": 21e9, "memory": 139 << 30}, "bf16"),
        ({}, "auto", {"on_gpu": False}, "fp32"),
        ({}, "bf16", {"on_gpu": False}, "bf16"),
    ],
)
def test_the_path_is_chosen_by_gpu_checkpoint_and_recipe(
    config: dict, precision: str, machine: dict, form: str
) -> None:
    chosen = choose(config, precision, **machine)
    assert chosen.form == form and chosen.why


@pytest.mark.parametrize(
    "config, precision, machine, says",
    [
        (NATIVE, "auto", {"on_gpu": True, "capability": (7, 5)}, f"8.0, this GPU has 7.5. Set base_model to {SPLIT}"),
        (NATIVE, "nf4", {"on_gpu": True}, SPLIT),
        ({}, "mxfp4", {"on_gpu": True}, "openai/gpt-oss-20b"),
        (NF4, "bf16", {"on_gpu": True}, "openai/gpt-oss-20b"),
        (NF4, "auto", {"on_gpu": False}, "NF4 needs a GPU"),
        ({"quantization_config": {"quant_method": "gptq"}}, "auto", {"on_gpu": True}, "'gptq'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(config: dict, precision: str, machine: dict, says: str) -> None:
    with pytest.raises(WrongForm, match=says.replace("(", r"\(")):
        choose(config, precision, **machine)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A snapshot: config.json and weights of the tiny model of the unit tests."""
    folder = tmp_path / "base"
    folder.mkdir()
    model = tiny()
    save_file({name: value.clone().bfloat16() for name, value in model.state_dict().items()}, folder / "m.safetensors")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    return folder


def planner(base: Path, available: int = 1 << 40, form: Form = "bf16", on_gpu: bool = True) -> Planner:
    return Planner(base, json.loads((base / "config.json").read_text()), form, available, on_gpu)


def needed(base: Path, recipe: Recipe, longest: int = 4096) -> int:
    return planner(base).predict(recipe, longest).total


def recipe(**changes: object) -> Recipe:
    return recipes.resolve("standard", {"max_length": 4096, **changes})


def test_each_choice_that_costs_memory_shows_in_the_prediction(base: Path) -> None:
    plain = needed(base, recipe())
    assert needed(base, recipe(batch_size=4)) > plain
    assert needed(base, recipe(lora_rank=64)) > plain
    assert needed(base, recipe(optimizer="adamw_torch")) > plain
    assert needed(base, recipe(gradient_checkpointing=False)) > plain
    assert needed(base, recipe(train_experts=False)) < plain
    assert needed(base, recipe(offload_embedding=True)) < plain
    assert needed(base, recipe(), longest=100) < plain
    assert needed(base, recipe(packing=True), longest=100) == plain, "a packed row is as long as it may be"


def test_the_nearest_recipe_keeps_the_effective_batch_and_shortens_examples_last(base: Path) -> None:
    asked = recipe(batch_size=6, accumulation=4)
    found = list(memory.smaller(asked))
    assert [c["batch_size"] * c["accumulation"] for c in found[:2]] == [24, 24]
    assert found[0]["batch_size"] == 3 and found[1]["batch_size"] == 1
    assert "max_length" not in found[2] and found[-1]["max_length"] == 256
    a_little_less = needed(base, recipe(batch_size=3, accumulation=8))
    assert planner(base, a_little_less).least_change(asked, 4096) == {"batch_size": 3, "accumulation": 8}
    assert planner(base, 1000).least_change(asked, 4096) is None


def test_a_gpu_with_room_does_more_at_once_and_never_more_than_fits(base: Path) -> None:
    asked = recipe(batch_size=2, accumulation=6, max_length=512)

    def filled(available: int, asked: Recipe = asked) -> tuple[int, int]:
        found = planner(base, available).filled(asked, 4096)
        return found.batch_size, found.accumulation

    assert filled(1 << 40) == (12, 1)
    assert filled(0) == (2, 6)
    four = needed(base, asked.model_copy(update={"batch_size": 4}))
    assert filled(int(four / memory.MARGIN) + 1) == (4, 3)
    assert filled(1 << 40, recipe(batch_size=2, accumulation=8)) == (4, 4), "16,384 tokens are enough"
    assert filled(1 << 40, recipe(fill_memory=False)) == (2, 8)
    assert filled(1 << 40, asked.model_copy(update={"gpus": 2})) == (6, 2), "each GPU has as many"
    assert memory.halved({"batch_size": 6, "accumulation": 2, "gpus": 2}) == {"batch_size": 3, "accumulation": 4}
    assert memory.halved({"batch_size": 1, "accumulation": 2, "gpus": 2}) is None


GPT_OSS_20B = {
    "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64, "head_dim": 64,
    "num_key_value_heads": 8, "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201_088,
}  # fmt: skip


@pytest.fixture
def full_size(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Planner]:
    """A planner for gpt-oss-20b, in MXFP4 if nothing else is said, on a GPU with so many bytes."""
    monkeypatch.setattr(hub, "parameters", lambda _: (20_914_757_184, 19_110_297_600))
    return lambda available, form="mxfp4": Planner(Path(), GPT_OSS_20B, form, available, True)


def test_experts_are_decoded_as_a_whole_only_where_it_pays_and_there_is_room(
    full_size: Callable[..., Planner],
) -> None:
    asked, plenty = recipe(batch_size=4, max_length=1024), full_size(1 << 40)
    assert not plenty.decodes(recipe(batch_size=2, max_length=1024), 4096), "256 rows an expert"
    decoded = plenty.predict(asked, 4096).total
    short = full_size(int(decoded / memory.MARGIN) - 1)
    assert plenty.decodes(asked, 4096) and not short.decodes(asked, 4096)
    assert short.predict(asked, 4096).total < decoded - (1 << 30)


@pytest.mark.parametrize(
    "values, available, reserved",
    [
        ({"batch_size": 1, "offload_embedding": True, "max_length": 512}, 1 << 40, 12.91),
        ({"batch_size": 1, "offload_embedding": True}, 1 << 40, 13.11),
        ({"batch_size": 1}, 1 << 40, 14.20),
        ({}, 1 << 40, 14.59),
        ({"batch_size": 4}, 1 << 40, 16.92),
        ({"batch_size": 4, "max_length": 4096}, 1 << 40, 20.91),
        ({"offload_embedding": True, "max_length": 4096}, 1 << 40, 17.46),
        ({"batch_size": 1, "offload_embedding": True, "max_length": 20480}, 24 << 30, 20.8),
        ({"batch_size": 1, "offload_embedding": True, "max_length": 131072}, 80 << 30, 65.4),
        ({"lora_rank": 16, "batch_size": 1, "max_length": 8192}, 1 << 40, 19.44),
        ({"lora_rank": 16, "batch_size": 1, "train_experts": False}, 1 << 40, 13.30),
        ({"lora_rank": 16, "batch_size": 4, "max_length": 2048, "train_experts": False}, 1 << 40, 16.99),
        ({"lora_rank": 64, "batch_size": 1, "optimizer": "adamw_torch_fused"}, 1 << 40, 24.41),
        ({"lora_rank": 64, "max_length": 2048, "optimizer": "adamw_torch_fused"}, 1 << 40, 27.10),
    ],
)
def test_the_prediction_is_within_seven_percent_of_what_an_h200_reserved(
    full_size: Callable[..., Planner], values: dict, available: int, reserved: float
) -> None:
    """Peaks in GiB of PyTorch's allocator, CUDA's own memory left out."""
    asked = recipe(**{"lora_rank": 8, "batch_size": 2, "max_length": 1024, **values})
    told = full_size(available).predict(asked, 1 << 20)
    assert (told.total - told.runtime) / 2**30 == pytest.approx(reserved, rel=0.07)


def test_a_run_that_cannot_fit_is_refused_before_the_model_is_loaded(
    base: Path, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(batch_size=4, accumulation=2)
    spec = runs.create(store, "train-x", "train", Job(dataset="d@1", recipe="standard", name="d"), asked)
    context = Context(settings, store, spec, 1)
    smaller = planner(base, form="fp32", on_gpu=False).predict(recipe(batch_size=2), 4000).total
    monkeypatch.setattr(footprint, "available", lambda _: smaller)
    with pytest.raises(Refused, match=r"GiB\. The nearest that fits: batch_size 2, accumulation 4\."):
        Footprint(context, asked, base, Choice("fp32", "a test says so"), longest=4000)
    told = next(runs.all_events(store, spec.id, "memory"))
    assert told["predicted"]["total"] > told["available"] == smaller


@pytest.mark.parametrize(
    ("form", "gib", "values", "shards"),
    [
        ("bf16", 24, {"gpus": 4}, 4),
        ("bf16", 24, {"gpus": 4, "shard": "never"}, 1),
        ("bf16", 80, {"gpus": 4}, 1),
        ("bf16", 80, {"gpus": 4, "shard": "always"}, 4),
        ("nf4", 16, {"gpus": 2}, 2),
        ("nf4", 12, {"gpus": 2}, 1),  # it would have to be whole on each GPU before it is sharded
        ("mxfp4", 12, {"gpus": 2, "shard": "always"}, 1),
    ],
)
def test_a_base_is_sharded_among_several_gpus_where_it_would_not_fit_one(
    full_size: Callable[..., Planner], form: Form, gib: int, values: dict, shards: int
) -> None:
    asked = recipe(batch_size=1, accumulation=8, max_length=1024, **values)
    found = full_size(gib << 30, form).sharded(asked, 1024)
    assert found.shards == shards
    assert found.fits(asked, 1024) == (shards > 1 or gib == 80)


def test_of_a_sharded_base_a_gpu_has_its_part_and_the_layers_in_use(full_size: Callable[..., Planner]) -> None:
    weights = [
        full_size(1 << 40, "bf16").sharded(recipe(gpus=gpus, shard="always"), 1024).predict(recipe(), 1024).weights
        for gpus in (2, 4, 8)
    ]
    assert (weights[0] - weights[1]) == pytest.approx(2 * (weights[1] - weights[2]), rel=1e-6)
    embedding_and_head, three_layers = 2 * 2 * 201_088 * 2880, (weights[0] - weights[1]) * 4 * 3 / 24
    assert weights[2] == pytest.approx(embedding_and_head + three_layers + (weights[0] - weights[1]) / 2, rel=1e-3)


def test_what_cannot_be_sharded_is_refused_with_what_can(
    base: Path, store: Store, settings: Settings, full_size: Callable[..., Planner]
) -> None:
    said = full_size(8 << 30).sentence(recipe(gpus=2), 1024)
    assert said.endswith("More GPUs do not help: MXFP4 weights cannot be sharded among them.")
    with pytest.raises(ValueError, match="set gpus above 1, or shard to auto"):
        recipe(shard="always")
    asked = recipe(gpus=2, shard="always")
    spec = runs.create(store, "train-x", "train", Job(dataset="d@1", recipe="standard", name="d"), asked)
    with pytest.raises(Refused, match=r"MXFP4 weights cannot be sharded\. Set shard to auto, or precision to bf16"):
        Footprint(Context(settings, store, spec, 1), asked, base, Choice("mxfp4", "a test says so"), longest=10)
