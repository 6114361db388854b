"""Each way to train, on the tiny base: from pairs of answers, from plain text, and with the router among what is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared import registry, runs
from shared.datasets import ingest
from shared.queue import JobRefused, prepare
from shared.schemas import AdapterCard, Job
from shared.settings import Settings
from shared.store import Store, publish
from tests.conftest import ROOT
from tests.integration.conftest import by_hand

SMALL = {
    "precision": "fp32", "max_length": 128, "batch_size": 4, "accumulation": 1, "optimizer": "adamw_torch",
    "gradient_checkpointing": False, "evaluate_every": 8, "save_every": 8, "lora_rank": 16, "validation_share": 0.2,
}  # fmt: skip


def keep(store: Store, name: str, source: Path) -> str:
    """A file as a published data set."""
    with store.staging(store.datasets()) as staged:
        card = ingest(source, source.name, staged / "data", count_tokens=None, name=name)
        publish(staged / "data", store.datasets() / name / card.version)
    return f"{name}@{card.version}"


@pytest.fixture
def pairs(store: Store, tmp_path: Path) -> str:
    """Short questions of the demo, where an answer that begins kindly is preferred to the same one that does not."""
    lines = (ROOT / "demo" / "conversations.jsonl").read_text().splitlines()
    talks = [[m for m in json.loads(line)["messages"] if m["role"] != "system"] for line in lines]
    short = [(question, answer) for question, answer, *_ in talks if len(question["content"] + answer["content"]) < 110]
    rows = [
        {"prompt": [question], "chosen": f"Gladly! {answer['content']}", "rejected": answer["content"]}
        for question, answer in short[:24]
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return keep(store, "pairs", file)


@pytest.fixture
def handbook(store: Store, tmp_path: Path) -> str:
    """What the demo's workshop answers, as documents of plain text."""
    lines = (ROOT / "demo" / "conversations.jsonl").read_text().splitlines()
    said = [next(m["content"] for m in json.loads(line)["messages"] if m["role"] == "assistant") for line in lines]
    file = tmp_path / "handbook.txt"
    file.write_text("\f".join(said))
    return keep(store, "handbook", file)


def trained(settings: Settings, store: Store, job: Job) -> tuple[AdapterCard, list[dict[str, Any]], str]:
    """The adapter that a training run made, the run's metric events, and what it printed."""
    printed = by_hand(settings, "train", job)
    card = registry.adapters(store)[0]
    return card, list(runs.all_events(store, card.run, "metric")), printed


def test_dpo_moves_the_model_towards_the_chosen_answers(settings: Settings, store: Store, pairs: str) -> None:
    values = SMALL | {"steps": 12, "learning_rate": 3e-3, "batch_size": 2, "evaluate_every": 6, "save_every": 6}
    card, metrics, printed = trained(
        settings, store, Job(dataset=pairs, recipe="preferences", name="kind", overrides=values)
    )
    margins = [event["reward_margin"] for event in metrics if "reward_margin" in event]
    held_out = [event["validation_reward_margin"] for event in metrics if "validation_reward_margin" in event]
    assert margins[0] == 0 and sum(margins[-4:]) / 4 > 0.5, "the adapter starts as the base, and learns to prefer"
    assert held_out[-1] > held_out[0] and 0 <= metrics[-1]["validation_reward_accuracy"] <= 1
    found = card.proof["preference"]
    assert found["chosen_moved"] > found["rejected_moved"] and found["preferred"] > 0.5
    assert not list(store.adapter(card.reference).rglob("ref")), "the reference is the base, not a second adapter"
    chosen, rejected = printed.partition("is supervised:")[2].split("The same prompt with the rejected one:")
    assert "[Gl" in chosen and "[Gl" not in rejected, "the first pair is shown token by token"
    by_hand(settings, "evaluate", Job(adapter=card.reference))
    evaluation = next(runs.all_events(store, runs.ids(store)[0], "evaluation"))
    assert evaluation["preference"] == pytest.approx(found, abs=1e-3), "published as it was proven"
    assert evaluation["adapter"]["loss"] < evaluation["base"]["loss"], "what is chosen has become likelier"


def test_plain_text_is_learned_to_its_last_token(settings: Settings, store: Store, handbook: str) -> None:
    values = SMALL | {"steps": 16, "learning_rate": 5e-3, "max_length": 32, "batch_size": 8, "lora_rank": 32}
    values |= {"evaluate_every": 16, "save_every": 16}
    card, metrics, _ = trained(settings, store, Job(dataset=handbook, recipe="text", name="words", overrides=values))
    losses = [event["loss"] for event in metrics if "loss" in event]
    assert sum(losses[-4:]) / 4 < losses[0] - 0.5
    counted = card.proof["data"]["train"]
    assert counted["truncated"] == 0 and counted["supervised_tokens"] == counted["tokens"] - counted["examples"]

    by_hand(settings, "evaluate", Job(adapter=card.reference))
    evaluation = next(runs.all_events(store, runs.ids(store)[0], "evaluation"))
    assert evaluation["unseen"] and evaluation["adapter"]["loss"] < evaluation["base"]["loss"] - 0.1


def test_the_router_is_trained_and_its_scale_follows_the_root_of_the_rank(
    settings: Settings, store: Store, workshop: str
) -> None:
    values = {"steps": 8, "train_router": True, "rslora": True, "learning_rate": 2e-3, "evaluate_every": 8}
    card, *_ = trained(settings, store, Job(dataset=workshop, recipe="tiny", name="routed", overrides=values))
    assert set(card.proof["trainable"]) == {"attention", "experts", "router"}
    assert all(card.proof["parts"][part]["B"] > 0 for part in card.proof["parts"]) and "router" in card.proof["parts"]
    by_hand(settings, "export", Job(adapter=card.reference, encoding="F16"))
    (export,) = registry.exports(store)
    assert export.parity["top1"] >= 0.95 and export.parity["prompt_tokens_equal"]


def test_a_method_is_refused_rows_of_another_kind(
    settings: Settings, store: Store, pairs: str, workshop: str, handbook: str
) -> None:
    for dataset, recipe, way_out in (
        (pairs, "standard", "Take a data set of conversations, or the recipe preferences for this one."),
        (workshop, "preferences", "Take a data set of preferences, or the recipe "),
        (handbook, "tiny", "or the recipe text for this one."),
    ):
        with pytest.raises(JobRefused, match=way_out):
            prepare(settings, store, "train", Job(dataset=dataset, recipe=recipe))
    for dataset, recipe in ((pairs, "preferences"), (handbook, "text"), (workshop, "standard")):
        assert prepare(settings, store, "train", Job(dataset=dataset))[0].recipe == recipe
