"""The order of the queue, how a run is moved in it, and what a run would take."""

from typing import Any

import pytest
import redis

from shared.settings import Settings
from tests.integration.api import GOOD, Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


@pytest.fixture
def waiting(api: Api) -> list[str]:
    """Three queued runs, the first sent first."""
    api.upload()
    body = {"kind": "train", "dataset": "chats", "recipe": "tiny"}
    return [api("POST", "/api/runs", 201, json=body).json["id"] for _ in range(3)]


def order(api: Api) -> list[str]:
    items = api("GET", "/api/queue", 200).json["items"]
    assert [item["position"] for item in items] == list(range(1, len(items) + 1))
    return [item["id"] for item in items]


def test_runs_start_in_the_order_in_which_they_came(api: Api, waiting: list[str]) -> None:
    assert order(api) == waiting


@pytest.mark.parametrize(("which", "to", "then"), [(2, 1, [2, 0, 1]), (0, 2, [1, 0, 2]), (0, 99, [1, 2, 0])])
def test_a_run_is_moved(api: Api, waiting: list[str], which: int, to: int, then: list[int]) -> None:
    items = api("POST", f"/api/queue/{waiting[which]}/move", 200, json={"to": to}).json["items"]
    assert [item["id"] for item in items] == order(api) == [waiting[i] for i in then]


def test_the_worker_takes_what_was_moved_to_the_front(api: Api, waiting: list[str], settings: Settings) -> None:
    api("POST", f"/api/queue/{waiting[2]}/move", 200, json={"to": 1})
    with redis.Redis.from_url(settings.redis_url) as client:
        assert waiting[2].encode() in client.brpop(settings.queue, 1)[1]  # as a worker does


def test_what_does_not_wait_is_not_moved(api: Api, waiting: list[str], settings: Settings) -> None:
    api("POST", f"/api/runs/{waiting[1]}/cancel", 200)
    assert order(api) == [waiting[0], waiting[2]]
    assert "cancelled" in api("POST", f"/api/queue/{waiting[1]}/move", 409, json={"to": 1}).json["error"]["message"]
    api("POST", "/api/queue/train-none/move", 404, json={"to": 1})
    api("POST", f"/api/queue/{waiting[0]}/move", 422, json={"to": 0})
    with redis.Redis.from_url(settings.redis_url) as client:
        client.delete(settings.queue)
    assert order(api) == [waiting[0], waiting[2]]  # a flushed queue keeps the order of sending
    api("POST", f"/api/queue/{waiting[0]}/move", 409, json={"to": 1})


def test_an_estimate_counts_steps_as_the_trainer_does(api: Api) -> None:
    api.upload("".join(GOOD.decode().replace("2+2", f"{i}+2") for i in range(100)).encode())
    body = {"kind": "train", "dataset": "chats", "recipe": "tiny", "overrides": {"steps": None, "epochs": 2}}
    found = api("POST", "/api/runs/estimate", 200, json=body).json
    batch = 8
    assert found["steps"] == found["examples"] // batch * 2 and found["examples"] in range(80, 95)
    assert found["tokens_per_step"] > batch and found["seconds"] is None and "no run" in found["seconds_from"]
    parts = dict(found["memory"])
    assert parts.pop("total") == sum(parts.values())
    doubled = api("POST", "/api/runs/estimate", 200, json={**body, "overrides": {"lora_rank": 64}}).json
    assert doubled["memory"]["adapter"] > found["memory"]["adapter"]


def test_an_estimate_counts_both_sides_of_a_pair_and_the_parts_of_a_text(api: Api) -> None:
    def found(content: str, name: str, **overrides: Any) -> dict[str, Any]:
        api.upload(content.encode(), f"name={name}&filename={name}.jsonl")
        body = {"kind": "train", "dataset": name, "overrides": {"batch_size": 2, "accumulation": 1, **overrides}}
        return api("POST", "/api/runs/estimate", 200, json=body).json

    pair = found('{"prompt": "2+2?", "chosen": "4", "rejected": "5"}\n' * 20, "pairs")
    talk = found(GOOD.decode() * 20, "talks", max_length=1024)
    assert pair["tokens_per_step"] > 1.5 * talk["tokens_per_step"] and pair["examples"] == talk["examples"]
    text = found('{"text": "%s"}\n' % ("word " * 1000), "tale", max_length=100)
    assert (
        text["examples"] == 9
        and 150 < text["tokens_per_step"] <= 200
        and not any("cut" in note for note in text["notes"])
    )


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"overrides": {"lora_rank": 0}}, 400, "lora_rank"),
        ({"overrides": {"lora_ranks": 3}}, 400, "Did you mean"),
        ({"dataset": "nothing"}, 404, "nothing"),
        ({"kind": "export"}, 400, "training"),
    ],
)
def test_an_estimate_is_refused_as_the_run_would_be(api: Api, change: dict, status: int, says: str) -> None:
    api.upload()
    body = {"kind": "train", "dataset": "chats", "recipe": "tiny", **change}
    assert says in api("POST", "/api/runs/estimate", status, json=body).json["error"]["message"]


def test_only_a_running_training_run_is_stopped_early(api: Api) -> None:
    queued = api.run("train-1")
    assert "queued" in api("POST", f"/api/runs/{queued}/stop", 409).json["error"]["message"]
    running = api.run("train-2", "running")
    assert api("POST", f"/api/runs/{running}/stop", 200).json["stop_requested"]
