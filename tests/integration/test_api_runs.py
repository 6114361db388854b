"""Runs through the API, against the data directory and a real Redis: asked for, cancelled, resumed, cloned, listed fast."""

import base64
import json
import time

import pytest
import redis

from shared import runs
from shared.schemas import Job
from shared.settings import Settings
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def messages(settings: Settings) -> list[tuple[str, str, dict]]:
    """(task, id, arguments) of each message that waits in Redis, the oldest first."""
    with redis.Redis.from_url(settings.redis_url) as client:
        waiting = [json.loads(text) for text in client.lrange(settings.queue, 0, -1)][::-1]
    return [(m["headers"]["task"], m["headers"]["id"], json.loads(base64.b64decode(m["body"]))[1]) for m in waiting]


def test_a_job_is_written_and_then_sent(api: Api, settings: Settings) -> None:
    ref = api.upload()["reference"]
    body = {"kind": "train", "dataset": "chats", "recipe": "tiny", "overrides": {"steps": 7}, "name": "talker"}
    run = api("POST", "/api/runs", 201, json=body, headers={"X-Request-Id": "asked-1"}).json
    assert (run["state"], run["dataset"], run["name"], run["recipe_name"]) == ("queued", ref, "talker", "tiny")
    assert run["spec"]["request_id"] == "asked-1"
    assert run["spec"]["recipe"]["steps"] == 7
    assert run["spec"]["recipe"]["base_model"] == settings.base_model
    spec = runs.read_spec(api.store, run["id"])
    assert spec.job == Job(dataset=ref, recipe="tiny", overrides={"steps": 7}, name="talker")
    sent = {"dataset": ref, "recipe": "tiny", "overrides": {"steps": 7}, "name": "talker"}
    assert messages(settings) == [("tandem.train", run["id"], sent)]
    assert api("GET", f"/api/runs/{run['id']}", 200).json == run


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"kind": "dance"}, 422, "kind"),
        ({"kind": "train", "dataset": "chats", "colour": "red"}, 422, "colour"),
        ({}, 422, "kind"),
        ({"kind": "train"}, 400, "dataset"),
        ({"kind": "train", "dataset": "none"}, 404, "none"),
        ({"kind": "train", "dataset": "../x"}, 400, "../x"),
        ({"kind": "train", "dataset": "chats", "recipe": "none"}, 400, "none"),
        ({"kind": "train", "dataset": "chats", "overrides": {"lora_rnk": 4}}, 400, "lora_rank"),
        ({"kind": "train", "dataset": "chats", "overrides": {"lora_rank": 0}}, 400, "lora_rank"),
        ({"kind": "train", "dataset": "chats", "name": "Not A Name"}, 400, "Not A Name"),
        ({"kind": "export", "adapter": "chats@v1"}, 404, "chats@v1"),
        ({"kind": "export", "adapter": "chats@v1", "encoding": "Q2_K"}, 422, "encoding"),
        ({"kind": "evaluate"}, 400, "adapter"),
        ({"kind": "fetch"}, 400, "repository"),
        ({"kind": "fetch", "repository": "a/b", "recipe": "tiny"}, 400, "recipe"),
    ],
)
def test_a_job_that_cannot_work_is_refused_by_name(
    api: Api, settings: Settings, body: dict, status: int, said: str
) -> None:
    api.upload()
    assert said in api("POST", "/api/runs", status, json=body).json["error"]["message"]
    assert runs.ids(api.store) == []
    assert messages(settings) == []


def test_other_kinds_are_queued_too(api: Api, settings: Settings) -> None:
    ref = api.upload(query="name=chats")["reference"]
    adapter = api.adapter()
    api("PUT", "/api/aliases/production", 200, json={"target": adapter})
    export = api("POST", "/api/runs", 201, json={"kind": "export", "adapter": "production"}).json
    assert (export["adapter"], export["encoding"], export["spec"]["recipe"]) == (adapter, "MXFP4", None)
    evaluate = api("POST", "/api/runs", 201, json={"kind": "evaluate", "adapter": adapter, "dataset": ref}).json
    fetch = api(
        "POST", "/api/runs", 201, json={"kind": "fetch", "repository": "a/b", "repository_type": "dataset"}
    ).json
    assert fetch["repository"] == "a/b"
    assert [m[1] for m in messages(settings)] == [export["id"], evaluate["id"], fetch["id"]]
    clone = api("POST", f"/api/runs/{export['id']}/clone", 201, json={}).json
    assert clone["adapter"] == adapter
    api("POST", f"/api/runs/{export['id']}/clone", 400, json={"overrides": {"steps": 3}})


def test_a_queue_that_does_not_answer_keeps_the_run(settings: Settings) -> None:
    api = Api(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    api.upload()
    began = time.monotonic()
    error = api("POST", "/api/runs", 503, json={"kind": "train", "dataset": "chats"}).json["error"]
    assert time.monotonic() - began < 5
    assert error["type"] == "queue_unreachable"
    assert error["details"] == runs.ids(api.store)
    assert api("GET", f"/api/runs/{error['details'][0]}", 200).json["state"] == "queued"
    assert api("GET", "/api/system", 200).json["services"]["redis"]["state"] == "down"


def test_a_queued_run_is_cancelled_at_once_and_resumed(api: Api, settings: Settings) -> None:
    run_id = api.run("train-1")
    cancelled = api("POST", f"/api/runs/{run_id}/cancel", 200).json
    assert (cancelled["state"], cancelled["cancel_requested"]) == ("cancelled", True)
    api("POST", f"/api/runs/{run_id}/cancel", 409)
    resumed = api("POST", f"/api/runs/{run_id}/resume", 200).json
    assert (resumed["state"], resumed["cancel_requested"]) == ("queued", False)
    assert messages(settings)[0][:2] == ("tandem.train", run_id)
    api("POST", f"/api/runs/{run_id}/resume", 409)


def test_a_running_run_is_asked_to_stop_and_resumed_as_the_next_attempt(api: Api, settings: Settings) -> None:
    run_id = api.run("train-1")
    assert runs.claim(api.store, run_id, 1, "box:1")
    runs.update(api.store, run_id, state="running", attempt=1)
    asked = api("POST", f"/api/runs/{run_id}/cancel", 200).json
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    assert asked["attempts"][0]["worker"] == "box:1"
    api("POST", f"/api/runs/{run_id}/resume", 409)
    runs.finish(api.store, run_id, "cancelled", "Cancelled after step 3; resume goes on from there.")
    api("POST", f"/api/runs/{run_id}/resume", 200)
    (_, message, arguments) = messages(settings)[0]
    assert (message, arguments["run_id"], arguments["attempt"]) == (f"{run_id}.2", run_id, 2)


def test_what_has_succeeded_is_neither_cancelled_nor_resumed_but_cloned(api: Api) -> None:
    ref = api.upload()["reference"]
    run_id = api.run("train-1", "succeeded", dataset=ref, overrides={"steps": 5})
    api("POST", f"/api/runs/{run_id}/cancel", 409)
    api("POST", f"/api/runs/{run_id}/resume", 409)
    clone = api("POST", f"/api/runs/{run_id}/clone", 201, json={"overrides": {"lora_rank": 4}}).json
    assert clone["cloned_from"] == run_id
    assert (clone["spec"]["recipe"]["steps"], clone["spec"]["recipe"]["lora_rank"]) == (5, 4)
    for action in ("cancel", "resume"):
        api("POST", f"/api/runs/none/{action}", 404)
    api("POST", "/api/runs/none/clone", 404, json={})


def test_a_run_tells_all_that_is_known_of_it(api: Api) -> None:
    run_id = api.run("train-1", "running")
    runs.append_event(api.store, run_id, "proof", supervised=12)
    runs.append_event(api.store, run_id, "warning", kind="overfitting", text="It recites.", step=3)
    runs.append_event(api.store, run_id, "log", text='"type": "proof"')
    checkpoint = api.store.run(run_id) / "checkpoints" / "checkpoint-10"
    checkpoint.mkdir()
    (checkpoint / "state.pt").write_bytes(b"12345")
    (api.store.run(run_id) / "log.txt").write_text("first\nsecond ü\n")
    body = api("GET", f"/api/runs/{run_id}", 200).json
    assert body["proof"]["supervised"] == 12
    assert body["evaluation"] is None
    assert body["warnings"][0]["text"] == "It recites."
    assert body["checkpoints"] == [{"step": 10, "bytes": 5}]
    log = api("GET", f"/api/runs/{run_id}/log?after=0&limit=8", 200).json
    assert log == {"text": "first\n", "next": 6}
    assert api("GET", f"/api/runs/{run_id}/log?after=6", 200).json["text"] == "second ü\n"
    assert api("GET", "/api/runs/none/log", 404)


def test_a_curve_is_thinned_and_keeps_its_last_point_and_the_validations(api: Api) -> None:
    run_id = api.run("train-1", "running")
    lines = []
    for step in range(1, 5001):
        lines.append({"time": "t", "type": "metric", "step": step, "loss": 1 / step})
        if step % 500 == 0:
            lines.append({"time": "t", "type": "metric", "step": step, "validation_loss": 2 / step})
    (api.store.run(run_id) / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = api("GET", f"/api/runs/{run_id}/metrics?points=100", 200).json
    assert table["columns"] == ["step", "loss", "validation_loss"]
    assert 30 < len(table["rows"]) <= 100
    assert [row[0] for row in table["rows"] if row[2]] == list(range(500, 5001, 500))
    assert [row[:2] for row in table["rows"] if row[1]][-1] == [5000, 1 / 5000]
    assert table["rows"][0] == [1, 1.0, None]
    assert api("GET", f"/api/runs/{run_id}/metrics?points=2", 200).json["rows"]
    api("GET", "/api/runs/none/metrics", 404)


def test_lists_are_filtered_and_paged(api: Api) -> None:
    for n, state in enumerate(["queued", "running", "failed", "failed", "succeeded"]):
        api.run(f"train-{n}", state, name=f"name-{n}")
        time.sleep(0.002)
    page = api("GET", "/api/runs?limit=2", 200).json
    assert ([item["id"] for item in page["items"]], page["total"]) == (["train-4", "train-3"], 5)
    assert [item["id"] for item in api("GET", page["next"], 200).json["items"]] == ["train-2", "train-1"]
    failed = api("GET", "/api/runs?state=failed&limit=1", 200).json
    assert (failed["total"], "state=failed" in failed["next"]) == (2, True)
    assert [item["id"] for item in api("GET", "/api/runs?q=NAME-1&kind=train", 200).json["items"]] == ["train-1"]
    assert api("GET", "/api/runs?kind=export", 200).json["items"] == []
    api("GET", "/api/runs?state=lost", 422)


def test_thousands_of_runs_and_a_long_one_are_shown_quickly(api: Api) -> None:
    template = api.run("train-0")
    spec = json.loads((api.store.run(template) / "spec.json").read_text())
    for n in range(1, 2000):
        folder = api.store.runs() / f"train-{n}"
        folder.mkdir()
        (folder / "spec.json").write_text(
            json.dumps({**spec, "id": folder.name, "created": f"2020-01-01T00:00:00.{n:04}Z"})
        )
        (folder / "status.json").write_text(
            json.dumps({"state": "failed" if n % 2 else "succeeded", "queued": spec["created"]})
        )
    line = '{"time": "2026-01-01T00:00:00.000Z", "type": "metric", "step": %d, "loss": 0.5, "learning_rate": 0.0002}\n'
    (api.store.run(template) / "events.jsonl").write_text("".join(line % step for step in range(100_000)))
    for path in (
        "",
        "?state=failed&offset=900",
        "?q=train-19",
        f"/{template}",
        f"/{template}/metrics",
        f"/{template}/events",
    ):
        began = time.monotonic()
        api("GET", f"/api/runs{path}", 200)
        assert time.monotonic() - began < 1.0, path
