"""Data sets through the API: uploaded in every way, refused with a sentence, read by page, mixed, deleted."""

import errno
import io
import json
from pathlib import Path

import pytest

from services.dashboard import intake
from shared.settings import Settings
from tests.integration.api import BAD, GOOD, Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def left_behind(api: Api) -> list[str]:
    """Whatever an upload has left outside of published data sets."""
    return [path.name for path in api.store.datasets().glob(".*")]


def row(n: int, **extra: object) -> bytes:
    messages = [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}", **extra}]
    return json.dumps({"messages": messages}).encode() + b"\n"


def test_an_upload_becomes_a_data_set(api: Api) -> None:
    card = api.upload(GOOD + BAD, "filename=My%20Chats%20(2).jsonl&licence=CC0-1.0")
    assert card["name"] == "my-chats-2"
    assert card["reference"] == f"my-chats-2@{card['version']}"
    assert (card["rows"]["accepted"], card["rows"]["rejected"], card["licence"]) == (1, 1, "CC0-1.0")
    assert card["tokens"]["total"] > 20
    assert api("GET", f"/api/datasets/{card['reference']}", 200).json == card
    assert api("GET", "/api/datasets/my-chats-2", 200).json == card
    assert api("GET", "/api/datasets?q=CHATS", 200).json["items"] == [card]
    assert api("GET", "/api/datasets?q=other", 200).json["items"] == []
    assert left_behind(api) == []


def test_the_same_content_again_is_the_data_set_that_exists(api: Api) -> None:
    first = api.upload(query="name=chats&filename=a.jsonl")
    again = api.upload(query="name=chats&filename=b.jsonl", status=200)
    assert again == first
    assert api("GET", "/api/datasets", 200).json["total"] == 1
    assert left_behind(api) == []


def test_a_form_uploads_as_well(api: Api) -> None:
    card = api("POST", "/api/datasets?name=chats", 201, data={"file": (io.BytesIO(GOOD * 3), "x.jsonl")}).json
    assert (card["rows"]["accepted"], card["source"]) == (3, "x.jsonl")
    assert api("GET", f"/api/datasets/{card['reference']}/original", 200).data == GOOD * 3
    answer = api("POST", "/api/datasets", 400, data={"other": (io.BytesIO(GOOD), "x.jsonl")})
    assert "'file'" in answer.json["error"]["message"]
    assert left_behind(api) == []


@pytest.mark.parametrize(
    "content", [b"", BAD * 30, b"\x00\x01\x02\x03" * 50, b"%PDF-1.7 nothing", b'{"a": 1}\n', b"\xff\xfe\x00"]
)
def test_a_file_without_a_usable_row_is_refused_with_a_sentence(api: Api, content: bytes) -> None:
    error = api.upload(content, status=422)["error"]
    assert error["type"] == "refused"
    assert error["message"].endswith((".", "}")) or "\n" in error["message"]
    assert len(error.get("details", [])) <= 20
    assert api("GET", "/api/datasets", 200).json["items"] == []
    assert left_behind(api) == []


def test_the_first_rejected_rows_come_with_the_refusal(api: Api) -> None:
    details = api.upload(BAD * 30, status=422)["error"]["details"]
    assert [detail["line"] for detail in details] == list(range(1, 21))
    assert "empty list" in details[0]["reason"]


@pytest.mark.parametrize("name", ["..", "../../x", "/etc/cron.d/x", "A", ".hidden", "a@b", "x" * 65])
def test_a_bad_name_is_refused(api: Api, name: str) -> None:
    api("POST", "/api/datasets", 400, query_string={"name": name}, data=GOOD)
    assert left_behind(api) == []


@pytest.mark.parametrize(
    "filename",
    ["../../../etc/passwd", "..\\..\\x.jsonl", "/tmp/x.jsonl", "a\r\nSet-Cookie: x=1.jsonl", "质量.jsonl", ".jsonl"],
)
def test_a_file_name_is_data_and_never_a_path(api: Api, filename: str) -> None:
    before = {path for path in api.store.root.parent.rglob("*") if "datasets" not in path.parts}
    card = api("POST", "/api/datasets", 201, query_string={"filename": filename}, data=GOOD).json
    assert card["source"] == filename
    original = api("GET", f"/api/datasets/{card['reference']}/original", 200)
    assert original.data == GOOD
    assert "Set-Cookie" not in original.headers
    assert original.headers["Content-Disposition"].startswith("attachment")
    after = {path for path in api.store.root.parent.rglob("*") if "datasets" not in path.parts}
    assert {path.suffix for path in after - before} <= {".used"}


def test_a_file_over_the_limit_is_refused_before_it_is_kept(settings: Settings) -> None:
    api = Api(settings.model_copy(update={"upload_limit_bytes": 1000}))
    api.upload(GOOD * 100, status=413)
    answer = api(
        "POST", "/api/datasets", 413, input_stream=io.BytesIO(GOOD * 100), environ_base={"wsgi.input_terminated": True}
    )
    assert answer.json["error"]["type"] == "too_large"  # nothing announced its size
    api("POST", "/api/datasets", 413, data={"file": (io.BytesIO(GOOD * 100), "x.jsonl")})
    assert left_behind(api) == []
    api.upload(GOOD)


def test_too_little_room_is_said_before_the_upload(settings: Settings) -> None:
    api = Api(settings.model_copy(update={"min_free_bytes": 1 << 60}))
    assert "free" in api.upload(status=507)["error"]["message"]


def test_a_disk_that_fills_up_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(intake, "publish", full)
    assert "disk is full" in api.upload(status=507)["error"]["message"]
    monkeypatch.undo()
    assert left_behind(api) == []
    assert api("GET", "/api/datasets", 200).json["total"] == 0


def test_without_the_base_tokens_are_not_counted_and_the_card_says_so(settings: Settings, tmp_path: Path) -> None:
    api = Api(settings.model_copy(update={"hf_home": tmp_path / "empty"}))
    card = api.upload()
    assert card["tokens"] is None
    assert "not in the Hugging Face cache" in card["notes"]
    answer = api("GET", f"/api/datasets/{card['reference']}/tokens", 404)
    assert "tandem fetch" in answer.json["error"]["message"]


def test_rows_are_read_by_page_and_found_by_text(api: Api) -> None:
    ref = api.upload(b"".join(row(n) for n in range(120)))["reference"]
    page = api("GET", f"/api/datasets/{ref}/rows?offset=100&limit=10", 200).json
    assert [item["index"] for item in page["items"]] == list(range(100, 110))
    assert page["total"] == 120
    following = api("GET", page["next"], 200).json
    assert (following["items"][-1]["index"], following["next"]) == (119, None)
    found = api("GET", f"/api/datasets/{ref}/rows?q=ANSWER%2077", 200).json
    assert [item["index"] for item in found["items"]] == [77]
    api("GET", f"/api/datasets/{ref}/rows?offset=-1", 422)
    api("GET", f"/api/datasets/{ref}/rows?limit=1001", 422)


def test_rejected_rows_are_read_by_page_and_as_a_file(api: Api) -> None:
    ref = api.upload(GOOD + BAD * 5)["reference"]
    page = api("GET", f"/api/datasets/{ref}/rejected?offset=3", 200).json
    assert ([item["line"] for item in page["items"]], page["total"]) == ([5, 6], 5)
    file = api.app.test_client().get(
        f"/api/datasets/{ref}/rejected?download=1", headers={"Authorization": f"Bearer {api.key}"}
    )
    assert len(file.data.splitlines()) == 5
    assert "attachment" in file.headers["Content-Disposition"]


def test_rejected_rows_are_found_by_text_and_by_the_kind_of_their_reason(api: Api) -> None:
    wizards = b"".join(b'{"messages": [{"role": "wizard%d", "content": "hi"}]}\n' % n for n in range(3))
    ref = api.upload(GOOD + BAD * 5 + wizards)["reference"]
    kinds = api("GET", f"/api/datasets/{ref}/rejected", 200).json["kinds"]
    assert list(kinds.values()) == [5, 3]
    empty, role = kinds
    assert "'messages' is an empty list" in empty and "line" not in empty
    found = api("GET", f"/api/datasets/{ref}/rejected", 200, query_string={"kind": role, "limit": 2}).json
    assert ([item["line"] for item in found["items"]], found["total"]) == ([7, 8], 3)
    assert api("GET", found["next"], 200).json["items"][0]["line"] == 9
    found = api("GET", f"/api/datasets/{ref}/rejected?q=WIZARD1", 200).json
    assert ([item["line"] for item in found["items"]], found["total"]) == ([8], 1)
    assert api("GET", f"/api/datasets/{ref}/rejected?q=WIZARD1&kind={empty}", 200).json["items"] == []


def test_the_accepted_rows_are_downloaded_as_they_are_kept(api: Api) -> None:
    ref = api.upload(GOOD + BAD + GOOD)["reference"]
    answer = api("GET", "/api/datasets/chats/data", 200)
    assert [json.loads(line) for line in answer.data.splitlines()] == [json.loads(GOOD)] * 2
    assert f"{ref}.jsonl" in answer.headers["Content-Disposition"]
    api("GET", "/api/datasets/none/data", 404)


def test_an_upload_says_how_far_it_is_and_what_came_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    stage = intake.publish

    def publish(*paths: Path) -> bool:
        told.append(api("GET", "/api/datasets/uploads/" + "a" * 32, 200).json)
        return stage(*paths)

    monkeypatch.setattr(intake, "publish", publish)
    content = GOOD * 3 + BAD
    ref = api.upload(content, "upload=" + "a" * 32)["reference"]
    size = len(content)
    assert [told[0][key] for key in ("phase", "read", "total", "accepted", "rejected")] == ["reading", size, size, 3, 1]
    ended = api("GET", "/api/datasets/uploads/" + "a" * 32, 200).json
    assert (ended["phase"], ended["reference"]) == ("done", ref)
    api.upload(b"", "upload=" + "b" * 32, 422)
    failed = api("GET", "/api/datasets/uploads/" + "b" * 32, 200).json
    assert (failed["phase"], failed["reference"]) == ("failed", None)
    assert "is empty" in failed["message"]
    api("GET", "/api/datasets/uploads/" + "c" * 32, 404)
    api("GET", "/api/datasets/uploads/short", 404)
    api.upload(query="upload=short", status=422)


def test_a_data_set_is_not_mixed_with_itself(api: Api) -> None:
    api.upload(GOOD * 9, "name=one")
    api.upload(GOOD * 9, "name=other")
    for second in ("one", "other"):
        body = {"reasoning": "one", "direct": second, "name": "both"}
        assert "nothing to mix" in api("POST", "/api/datasets/mix", 422, json=body).json["error"]["message"]


def test_a_row_is_shown_as_the_trainer_sees_it(api: Api) -> None:
    ref = api.upload()["reference"]
    view = api("GET", f"/api/datasets/{ref}/tokens?effort=high", 200).json
    tokens = view["examples"][0]["tokens"]
    text = "".join(token["text"] for token in tokens)
    assert "Reasoning: high" in text
    assert "Two and two." in text
    learned = "".join(token["text"] for token in tokens if token["supervised"])
    assert learned.startswith("<|channel|>analysis<|message|>Two and two.")
    assert "2+2?" not in learned
    final = api("GET", f"/api/datasets/{ref}/tokens?policy=final", 200).json["examples"][0]
    assert final["supervised"] < view["examples"][0]["supervised"]
    assert api("GET", f"/api/datasets/{ref}/tokens?max_length=10", 200).json["examples"][0]["truncated"] is True
    api("GET", f"/api/datasets/{ref}/tokens?row=1", 404)
    api("GET", f"/api/datasets/{ref}/tokens?policy=everything", 422)


def test_two_data_sets_are_mixed(api: Api) -> None:
    thinking = api.upload(b"".join(row(n, thinking="Hm.") for n in range(30)), "name=thinking")["reference"]
    direct = api.upload(b"".join(row(n) for n in range(30)), "name=direct")["reference"]
    body = {"reasoning": thinking, "direct": "direct", "name": "both", "total": 20}
    card = api("POST", "/api/datasets/mix", 201, json=body).json
    assert (card["rows"]["accepted"], card["reasoning"]["rows"]) == (20, 15)
    assert card["parents"] == [thinking, direct]
    assert api("POST", "/api/datasets/mix", 200, json=body).json == card
    api("POST", "/api/datasets/mix", 422, json={**body, "total": 1000})
    api("POST", "/api/datasets/mix", 422, json={**body, "share": 2})
    api("POST", "/api/datasets/mix", 404, json={**body, "direct": "none"})
    api("GET", f"/api/datasets/{card['reference']}/original", 404)


def test_what_is_not_in_the_cache_cannot_be_imported(api: Api) -> None:
    answer = api("POST", "/api/datasets/import", 409, json={"repository": "someone/something"})
    assert "tandem fetch --dataset someone/something" in answer.json["error"]["message"]
    assert api("POST", "/api/datasets/import", 422, json={"repository": "../../etc"}).json["error"]["type"] == "refused"
    assert left_behind(api) == []


def test_a_cached_data_set_is_imported_without_a_network(settings: Settings, tmp_path: Path) -> None:
    repo = tmp_path / "hf" / "hub" / "datasets--someone--talks"
    (repo / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c" * 40)
    (repo / "snapshots" / ("c" * 40) / "train.jsonl").write_bytes(GOOD)
    api = Api(settings.model_copy(update={"hf_home": tmp_path / "hf"}))
    card = api("POST", "/api/datasets/import", 201, json={"repository": "someone/talks"}).json
    assert (card["name"], card["rows"]["accepted"]) == ("talks", 1)
    assert "c" * 40 in card["source"]


def test_a_data_set_that_a_run_needs_is_not_deleted(api: Api) -> None:
    ref = api.upload()["reference"]
    api.run("train-1", dataset=ref)
    assert api("DELETE", f"/api/datasets/{ref}", 409).json["error"]["details"] == ["train-1"]
    api("POST", "/api/runs/train-1/cancel", 200)
    api("DELETE", f"/api/datasets/{ref}", 204)
    api("GET", f"/api/datasets/{ref}", 404)
    assert left_behind(api) == []


def test_what_a_crash_left_is_cleared_after_a_day(api: Api) -> None:
    staging = api.store.datasets() / ".staging-old"
    staging.mkdir(parents=True)
    (api.store.datasets() / ".upload-old").write_bytes(b"x")
    born = staging.stat().st_mtime
    intake.clear_abandoned(api.store, born + 60)
    assert len(left_behind(api)) == 2
    intake.clear_abandoned(api.store, born + 2 * intake.ABANDONED)
    assert left_behind(api) == []
