"""Deleting through the API: runs, checkpoints and what the disk page offers; nothing that is used, nothing twice."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared import runs
from shared.schemas import Job
from shared.settings import Settings
from shared.store import read_json, write_json
from tests.hub import Cached
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


@pytest.fixture
def own_cache(settings: Settings, tmp_path: Path) -> Api:
    """With an empty Hugging Face cache of the test's own."""
    return Api(settings.model_copy(update={"hf_home": tmp_path / "hf"}))


def ended(api: Api, run_id: str, state: str = "succeeded", days: float = 0) -> str:
    """A run that ended so many days ago, with a checkpoint."""
    api.run(run_id)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - days * 86400))
    runs.update(api.store, run_id, state=state, ended=moment)
    folder = api.store.run(run_id) / "checkpoints" / "checkpoint-3"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"0" * 50_000)
    return run_id


def offered(api: Api) -> dict[str, str]:
    """What can go: name and kind."""
    return {item["name"]: item["kind"] for item in api("GET", "/api/storage", 200).json["deletable"]}


# ---- runs


def test_an_ended_run_is_deleted_and_what_it_published_stays(api: Api) -> None:
    adapter = api.adapter()
    ended(api, "train-1")
    api("DELETE", "/api/runs/train-1", 204)
    api("GET", "/api/runs/train-1", 404)
    assert api("GET", "/api/runs", 200).json["items"] == []
    api("GET", f"/api/adapters/{adapter}", 200)
    assert os.listdir(api.store.runs()) == []
    api("DELETE", "/api/runs/train-1", 404)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_that_has_not_ended_keeps_all_it_has(api: Api, state: str) -> None:
    api.run("train-1", state)
    for path in ("/api/runs/train-1", "/api/runs/train-1/checkpoints"):
        assert state in api("DELETE", path, 409).json["error"]["message"]
    assert api("GET", "/api/runs/train-1", 200).json["state"] == state


def test_a_run_cancelled_in_the_queue_waits_for_its_message(api: Api) -> None:
    """Deleted before the trainer has seen its message, the message would make it again."""
    api.run("train-1")
    api("POST", "/api/runs/train-1/cancel", 200)
    assert "queue" in api("DELETE", "/api/runs/train-1", 409).json["error"]["message"]
    runs.finish(api.store, "train-1", "cancelled", "Cancelled before it started.")
    api("DELETE", "/api/runs/train-1", 204)


def test_checkpoints_go_and_the_run_stays(api: Api) -> None:
    ended(api, "train-1")
    assert [c["step"] for c in api("GET", "/api/runs/train-1", 200).json["checkpoints"]] == [3]
    api("DELETE", "/api/runs/train-1/checkpoints", 204)
    assert api("GET", "/api/runs/train-1", 200).json["checkpoints"] == []
    api("DELETE", "/api/runs/train-1/checkpoints", 204)
    api("DELETE", "/api/runs/none/checkpoints", 404)


def test_two_tabs_delete_once_and_readers_see_all_or_nothing(api: Api) -> None:
    for i in range(12):
        ended(api, f"train-{i}")
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(api, "GET", "/api/runs", 200) for _ in range(20)]
        deletions = [pool.submit(api, "DELETE", f"/api/runs/train-{i}") for i in range(12) for _ in range(2)]
    answers = [deletion.result().status_code for deletion in deletions]
    assert sorted(answers) == [204] * 12 + [404] * 12
    assert all(read.result().status_code == 200 for read in reads)
    assert api("GET", "/api/runs", 200).json["total"] == 0


def test_a_folder_without_a_spec_does_not_hide_the_other_runs(api: Api) -> None:
    api.run("train-1")
    (api.store.runs() / "train-2").mkdir()
    assert [run["id"] for run in api("GET", "/api/runs", 200).json["items"]] == ["train-1"]


# ---- what can go


def test_checkpoints_are_offered_when_nothing_goes_on_from_them(own_cache: Api) -> None:
    ended(own_cache, "done")
    ended(own_cache, "failed-lately", "failed", days=2)
    ended(own_cache, "failed-long-ago", "failed", days=8)
    ended(own_cache, "goes-on", "running")
    assert offered(own_cache) == {"done": "checkpoints", "failed-long-ago": "checkpoints"}
    for item in own_cache("GET", "/api/storage", 200).json["deletable"]:
        own_cache(item["request"]["method"], item["request"]["path"], 204)
    assert offered(own_cache) == {}


def test_exports_are_offered_unless_something_needs_them(own_cache: Api) -> None:
    own_cache.adapter()
    for name in ("chats-v1-F16.gguf", "chats-v1-Q8_0.gguf", "chats-v1-MXFP4.gguf"):
        own_cache.export(name)
        time.sleep(0.01)
    assert set(offered(own_cache)) == {"chats-v1-F16.gguf", "chats-v1-Q8_0.gguf"}, "llama.cpp serves the newest"
    own_cache("PUT", "/api/aliases/gguf", 200, json={"target": "chats-v1-F16.gguf"})
    own_cache("PUT", "/api/aliases/production", 200, json={"target": "chats-v1-Q8_0.gguf"})
    assert set(offered(own_cache)) == {"chats-v1-MXFP4.gguf"}
    for alias in ("gguf", "production"):
        own_cache("DELETE", f"/api/aliases/{alias}", 204)
    own_cache("DELETE", "/api/adapters/chats@v1", 204)
    assert offered(own_cache) == {}, "without the adapter they cannot be made again"


def test_only_older_versions_of_a_data_set_that_nothing_names_are_offered(own_cache: Api) -> None:
    row = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "b"}]}\n'
    old, named, newest = (own_cache.upload((row % word).encode(), "name=chats")["reference"] for word in "abc")
    for i, reference in enumerate((old, named, newest)):
        card = own_cache.store.dataset(reference) / "card.json"
        write_json(card, {**read_json(card), "created": f"2026-01-0{i + 1}T00:00:00Z"})
    own_cache.run("train-1", "failed", dataset=named)
    assert offered(own_cache) == {old: "dataset"}
    own_cache("DELETE", f"/api/datasets/{old}", 204)
    assert own_cache("GET", "/api/datasets/chats", 200).json["reference"] == newest


def test_what_interrupted_work_left_is_offered_after_a_day(own_cache: Api) -> None:
    for place, name in ((own_cache.store.datasets(), ".upload-x"), (own_cache.store.exports(), ".staging-y")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"0" * 10_000)
    assert offered(own_cache) == {}
    for path in own_cache.store.root.glob("*/.*-?"):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert list(offered(own_cache).values()) == ["abandoned"]
    own_cache("DELETE", "/api/storage/abandoned", 204)
    assert offered(own_cache) == {} and not list(own_cache.store.root.glob("*/.*-?"))


def test_the_cache_offers_what_is_the_base_of_nothing(own_cache: Api) -> None:
    hf_home = own_cache.settings.hf_home
    Cached(hf_home, own_cache.settings.base_model)
    Cached(hf_home, "someone/else")
    Cached(hf_home, "someone/rows", "dataset")
    assert offered(own_cache) == {"someone/else": "cache", "someone/rows": "cache"}
    item = next(i for i in own_cache("GET", "/api/storage", 200).json["deletable"] if i["name"] == "someone/else")
    made = own_cache("POST", item["request"]["path"], 201, json=item["request"]["body"]).json
    assert (made["kind"], made["action"], made["repository"]) == ("fetch", "remove", "someone/else")
    assert offered(own_cache) == {"someone/rows": "cache"}, "it is being removed"


def test_kinds_add_up_to_what_the_folders_hold(own_cache: Api) -> None:
    ended(own_cache, "train-1")
    kinds = own_cache("GET", "/api/storage", 200).json["by_kind"]
    assert kinds["checkpoints"] >= 50_000 > kinds["runs"] > 0
    own_cache("DELETE", "/api/runs/train-1/checkpoints", 204)
    assert own_cache("GET", "/api/storage", 200).json["by_kind"]["checkpoints"] == 0, "at once, not a minute later"


def test_thousands_of_runs_are_added_up_quickly(own_cache: Api) -> None:
    for i in range(2000):
        folder = own_cache.store.runs() / f"train-{i}"
        (folder / "checkpoints").mkdir(parents=True)
        spec = {"id": folder.name, "created": f"{i:06}", "kind": "train", "job": {}}
        (folder / "spec.json").write_text(json.dumps(spec))
        (folder / "status.json").write_text('{"state": "succeeded"}')
    for most in (3.0, 1.0):  # at first every file is read; seconds on a busy machine
        began = time.monotonic()
        own_cache("GET", "/api/storage", 200)
        assert time.monotonic() - began < most


# ---- the cache, GPUs over time, sign-in links


def test_the_cache_is_listed_with_its_problems(own_cache: Api) -> None:
    assert own_cache("GET", "/api/cache", 200).json["items"] == []
    cached = Cached(own_cache.settings.hf_home)
    os.truncate(cached.blob("model-1.safetensors"), 20)
    (item,) = own_cache("GET", "/api/cache", 200).json["items"]
    assert (item["repository"], item["needed_by"], item["last_run"]) == ("someone/something", None, None)
    assert [problem["file"] for problem in item["problems"]] == ["model-1.safetensors"]
    own_cache("POST", "/api/runs", 201, json={"kind": "fetch", "action": "check", "repository": "someone/something"})
    (item,) = own_cache("GET", "/api/cache", 200).json["items"]
    run = item["last_run"]
    assert (run["action"], run["state"], run["found"]) == ("check", "queued", [])
    runs.append_event(own_cache.store, run["id"], "warning", text="config.json is not what it was.")
    runs.finish(own_cache.store, run["id"], "succeeded", result="1 broken in 4 files")
    (item,) = own_cache("GET", "/api/cache", 200).json["items"]
    assert item["last_run"]["found"] == ["config.json is not what it was."]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "fetch", "action": "remove", "repository": "tandem/tiny-gpt-oss"}, "TANDEM_BASE_MODEL"),
        ({"kind": "fetch", "action": "check", "repository": "not/there"}, "not/there is not in the Hugging Face cache"),
        ({"kind": "fetch", "action": "check", "repository": "../../etc"}, "not in the Hugging Face cache"),
        ({"kind": "train", "action": "check", "dataset": "chats"}, "takes no action"),
    ],
)
def test_what_cannot_be_done_with_the_cache_is_refused(api: Api, body: dict, said: str) -> None:
    api.upload()
    assert said in api("POST", "/api/runs", 400, json=body).json["error"]["message"]
    assert runs.ids(api.store) == []


def test_the_base_of_an_adapter_or_of_a_waiting_run_is_not_removed(own_cache: Api) -> None:
    Cached(own_cache.settings.hf_home, "b")
    Cached(own_cache.settings.hf_home, "c/d")
    own_cache.adapter()  # on the base "b"
    body = {"kind": "fetch", "action": "remove", "repository": "b"}
    assert "chats@v1" in own_cache("POST", "/api/runs", 400, json=body).json["error"]["message"]
    own_cache.upload()
    train = {"kind": "train", "dataset": "chats", "recipe": "tiny", "overrides": {"base_model": "c/d"}}
    run = own_cache("POST", "/api/runs", 201, json=train).json["id"]
    assert run in own_cache("POST", "/api/runs", 400, json={**body, "repository": "c/d"}).json["error"]["message"]


def test_the_action_is_told_of_fetches_alone(api: Api) -> None:
    run = runs.create(api.store, "fetch-1", "fetch", Job(repository="a/b"))
    assert api("GET", f"/api/runs/{run.id}", 200).json["action"] == "fetch"
    assert api("GET", f"/api/runs/{api.run('train-1')}", 200).json["action"] is None


def test_history_answers_with_even_columns(api: Api) -> None:
    for seconds in (60, 3600, 86400):
        body = api("GET", f"/api/system/history?seconds={seconds}", 200).json
        assert len(body["time"]) == len(body["load"]) <= 600 and body["gpus"] == []
    api("GET", "/api/system/history?seconds=5", 422)


def test_a_person_makes_a_sign_in_link_and_a_key_cannot(api: Api) -> None:
    from tests.integration.test_api_access import browser

    refused = api("POST", "/api/sign-in-links", 403).json["error"]["message"]
    assert "browser" in refused
    client = browser(api)
    answer = client.post("/api/sign-in-links", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 201 and answer.json["hours"] == 24
    assert answer.json["url"].startswith(f"{api.settings.public_url}/sign-in?token=")
    path = answer.json["url"].removeprefix(api.settings.public_url)
    assert [api.app.test_client().get(path).status_code for _ in range(2)] == [303, 401]
