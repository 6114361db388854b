"""Conversations through the API: kept whatever happens, found again, taken along and brought back, kept as rows."""

import importlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.dashboard import chats
from shared.harmony import Encoder, render
from shared.settings import Settings
from tests.integration.api import Api

NOW = "2026-11-21T08:00:00.000Z"
NASTY = "a\n\n\n<!-- tandem: {} -->\n\\<!-- tandem: x\n## You\n--> \r\n$x$ “ü” \x1f\n\n"


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def message(id_: str, parent: str | None, content: str, **more: object) -> dict:
    role = "assistant" if id_.startswith("a") else "user"
    return {"id": id_, "parent": parent, "role": role, "content": content, "created": NOW, **more}


def talk(api: Api, *more: dict, **fields: object) -> dict:
    """A conversation of a question and an answer."""
    answer = message("a1", "q1", "At nine.", thinking="Hours.", model="x@v1", sha256="00", finish="stop")
    messages = [message("q1", None, "When do you open?"), answer, *more]
    body = {"messages": messages, "heads": [messages[-1]["id"]], "models": ["x@v1"], **fields}
    return api("POST", "/api/chats", 201, json=body).json


def test_a_conversation_is_kept_and_called_by_its_first_question(api: Api) -> None:
    made = talk(api)
    assert made["title"] == "When do you open?"
    assert api("GET", f"/api/chats/{made['id']}", 200).json == made
    file = (api.store.chats() / f"{made['id']}.json").read_text()
    assert json.loads(file) == made
    assert sum("At nine." in line for line in file.splitlines()) == 1, "a line for each message"


def test_two_windows_lose_nothing_of_each_other(api: Api) -> None:
    """Each knows only what it wrote itself; at once, many times."""
    path = f"/api/chats/{talk(api)['id']}"

    def save(n: int) -> None:
        api("PATCH", path, 200, json={"messages": [message(f"q-{n}", "a1", f"more {n}")]})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(40)))
    assert {m["id"] for m in api("GET", path, 200).json["messages"]} == {"q1", "a1", *(f"q-{n}" for n in range(40))}


def test_a_message_is_merged_by_its_id_and_null_takes_a_value_away(api: Api) -> None:
    path = f"/api/chats/{talk(api)['id']}"
    again = message("a1", "q1", "At ten.", thinking=None, error="The line broke.")
    api("PATCH", path, 200, json={"messages": [again]})
    kept = api("GET", path, 200).json["messages"][1]
    assert (kept["content"], kept["error"], kept["model"]) == ("At ten.", "The line broke.", "x@v1")
    assert "thinking" not in kept


def test_deleting_a_message_takes_what_follows_it_and_the_head_goes_back(api: Api) -> None:
    made = talk(api, message("q2", "a1", "And on Sundays?"), message("a2", "q2", "No."))
    path = f"/api/chats/{made['id']}"
    assert api("PATCH", path, 200, json={"removed": ["q2"]}).json["messages"] == 2
    assert api("GET", path, 200).json["heads"] == ["a1"]
    answer = api("PATCH", path, 409, json={"messages": [message("a2", "q2", "No.")]})
    assert "another window" in answer.json["error"]["message"]


def test_the_list_has_the_last_changed_first_and_searches_titles_and_texts(api: Api) -> None:
    old, new = talk(api), talk(api, message("q2", "a1", 'A "Ü"\nback\\slash'))
    assert [c["id"] for c in api("GET", "/api/chats", 200).json["items"]] == [new["id"], old["id"]]
    api("PATCH", f"/api/chats/{old['id']}", 200, json={"title": "Opening hours"})
    assert [c["id"] for c in api("GET", "/api/chats", 200).json["items"]] == [old["id"], new["id"]]
    for q, found in (("OPENING h", [old]), ("at NINE", [old, new]), ('a "ü"\nb', [new]), ("k\\s", [new]), ("a1", [])):
        answer = api("GET", "/api/chats", 200, query_string={"q": q}).json
        assert [c["id"] for c in answer["items"]] == [c["id"] for c in found], q
    first = api("GET", "/api/chats?limit=1", 200).json
    assert first["total"] == 2
    assert [c["id"] for c in api("GET", first["next"], 200).json["items"]] == [new["id"]]


def test_json_brings_the_very_same_back(api: Api) -> None:
    made = talk(api, message("a-2", "q1", NASTY, token_ids=[1, 2]), system="Be brief.")
    file = api("GET", f"/api/chats/{made['id']}/export", 200).data
    api("DELETE", f"/api/chats/{made['id']}", 204)
    api("GET", f"/api/chats/{made['id']}", 404)
    assert api("POST", "/api/chats/import", 201, data=file).json == made
    twice = api("POST", "/api/chats/import", 201, data=file).json
    assert twice["id"] != made["id"] and twice == {**made, "id": twice["id"]}


def test_markdown_brings_the_shown_lines_back_to_the_letter(api: Api) -> None:
    hidden = message("a-hidden", "q1", "not shown")
    shown = [message("q2", "a1", NASTY), message("a2", "q2", NASTY, thinking=NASTY, model="--> x", effort="low")]
    made = talk(api, hidden, *shown, message("a-3", "q2", ""), system=NASTY, title="# --> t", heads=["a2", "a-3"])
    file = api("GET", f"/api/chats/{made['id']}/export?format=markdown", 200).data
    assert b"## You" in file and b"When do you open?" in file
    api("DELETE", f"/api/chats/{made['id']}", 204)
    back = api("POST", "/api/chats/import", 201, data=file).json
    assert back == {**made, "messages": [m for m in made["messages"] if m["id"] != "a-hidden"]}


def test_openai_messages_come_in(api: Api) -> None:
    given = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."},
    ]
    for body in (given, {"messages": given}):
        made = api("POST", "/api/chats/import", 201, data=json.dumps(body)).json
        assert (made["title"], made["system"]) == ("Hi", "Be brief.")
        line = [(m["role"], m["content"], m.get("thinking")) for m in chats.line(made, made["heads"][0])]
        assert line == [("user", "Hi", None), ("assistant", "Hello.", "A greeting.")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "comments are missing"),
        (b"\xff\xfe", "UTF-8"),
        (b"# Notes\n", "comments are missing"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "no list of messages"),
        (b'{"messages": 3}', "no list of messages"),
        (b'[{"role": "tool", "content": "x"}]', "'tool'"),
        (b'{"id": "x", "messages": [{"id": "a"}]}', "at title"),
        (b'{"id": "../x", "title": "", "created": "", "updated": "", "messages": []}', "cannot be a chat id"),
        (b'<!-- tandem: {"chat": {}} -->\n# x\n\n', "at id"),
        (b'<!-- tandem: {"chat": {}} -->\n<!-- tandem: nothing -->\n', "broken"),
    ],
)
def test_what_is_no_conversation_is_refused_with_a_sentence(api: Api, content: bytes, says: str) -> None:
    answer = api("POST", "/api/chats/import", data=content)
    assert answer.status_code in (400, 422)
    assert says in answer.json["error"]["message"]
    assert api("GET", "/api/chats", 200).json["total"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [message("q1", "nobody", "x")]},
        {"messages": [{**message("q1", None, "x"), "role": "system"}]},
        {"messages": [{**message("q1", None, "x"), "id": "../x"}]},
        {"title": "x" * 201},
        {"heads": ["a", "b", "c"]},
        {"other": 1},
    ],
)
def test_what_cannot_be_kept_is_refused(api: Api, body: dict) -> None:
    assert api("POST", "/api/chats", json=body).status_code in (409, 422)
    assert api("GET", "/api/chats", 200).json["total"] == 0


def test_half_a_character_does_not_keep_the_rest_from_being_kept(api: Api) -> None:
    made = talk(api, message("q2", "a1", "half \ud83d of it"))
    assert api("GET", f"/api/chats/{made['id']}", 200).json["messages"][2]["content"] == "half ? of it"


def test_a_conversation_may_be_large_but_not_without_end(api: Api) -> None:
    made = talk(api, message("q2", "a1", "long " * 1_000_000))
    answer = api("PATCH", f"/api/chats/{made['id']}", 413, json={"messages": [message("q3", "a1", "x" * (12 << 20))]})
    assert "Export it" in answer.json["error"]["message"]
    api("POST", "/api/chats", 413, data=b" " * (17 << 20), content_type="application/json")
    assert len(api("GET", f"/api/chats/{made['id']}", 200).json["messages"]) == 3


def test_a_conversation_becomes_a_row_of_a_new_version(api: Api) -> None:
    first = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "One.", "thinking": "Count."}]
    second = [{"role": "system", "content": "Brief."}, *first[:1], {"role": "assistant", "content": "1"}]
    one = api("POST", "/api/datasets/kept/rows", 201, json={"messages": first}).json
    two = api("POST", "/api/datasets/kept/rows", 201, json={"messages": second, "reasoning_effort": "low"}).json
    assert (one["rows"]["accepted"], two["rows"]["accepted"], two["parents"]) == (1, 2, [one["reference"]])
    assert two["tokens"]["total"] > one["tokens"]["total"] > 10
    assert api("GET", "/api/datasets/kept", 200).json == two, "the newest version, made in the same second"
    rows = api("GET", "/api/datasets/kept/rows", 200).json["items"]
    assert rows == [{"index": 0, "messages": first}, {"index": 1, "messages": second, "reasoning_effort": "low"}]
    assert api("POST", "/api/datasets/kept/rows", 200, json={"messages": first}).json == two
    assert api("GET", "/api/datasets", 200).json["total"] == 2


def test_rows_kept_at_once_are_all_kept(api: Api) -> None:
    def keep(n: int) -> None:
        messages = [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]
        api("POST", "/api/datasets/kept/rows", 201, json={"messages": messages})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(8)))
    assert api("GET", "/api/datasets/kept", 200).json["rows"]["accepted"] == 8


def test_a_large_data_set_does_not_grow_row_by_row(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("shared.datasets.append"), "MOST_ROWS", 1)
    talk = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "One."}]
    api("POST", "/api/datasets/kept/rows", 201, json={"messages": talk})
    more = [*talk, *talk]
    answer = api("POST", "/api/datasets/kept/rows", 422, json={"messages": more})
    assert "under another name" in answer.json["error"]["message"]
    api("POST", "/api/datasets/kept-2/rows", 201, json={"messages": more})


@pytest.mark.parametrize(
    ("name", "messages", "status", "says"),
    [
        ("kept", [], 422, "empty list"),
        ("kept", [{"role": "user", "content": "?"}], 422, "no assistant message"),
        ("kept", [{"role": "user", "content": "?"}, {"role": "assistant", "content": ""}], 422, "empty content"),
        (
            "Kept!",
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}],
            400,
            "cannot be a data set",
        ),
    ],
)
def test_what_cannot_be_learned_is_not_kept(api: Api, name: str, messages: list, status: int, says: str) -> None:
    answer = api("POST", f"/api/datasets/{name}/rows", status, json={"messages": messages})
    assert says in answer.json["error"]["message"]
    assert api("GET", "/api/datasets", 200).json["total"] == 0


def test_tokens_are_shown_with_their_role_and_channel(api: Api, encoder: Encoder) -> None:
    conversation = {"messages": [{"role": "user", "content": "Hi"}]}
    prompt = encoder.encode(render(conversation, date="2026-11-21", generate=True))
    answer = [{"role": "assistant", "content": "Hello.", "thinking": "A greeting."}]
    whole = encoder.encode(render({"messages": [*conversation["messages"], *answer]}, date="2026-11-21"))
    generated = whole[len(prompt) :]
    assert whole[: len(prompt)] == prompt
    found = api("POST", "/api/tokens", 200, json={"ids": whole}).json["tokens"]
    assert [token["id"] for token in found] == whole
    said = {(t["role"], t["channel"]): "" for t in found if t["kind"] == "content"}
    for token in found:
        if token["kind"] == "content":
            said[token["role"], token["channel"]] += token["text"]
    assert said["user", None] == "Hi" and said["assistant", "final"] == "Hello."
    assert said["assistant", "analysis"] == "A greeting."
    alone = api("POST", "/api/tokens", 200, json={"ids": generated}).json["tokens"]
    assert [(t["channel"], t["kind"]) for t in alone] == [(t["channel"], t["kind"]) for t in found[len(prompt) :]]
    api("POST", "/api/tokens", 200, json={"ids": [201087, 0]})
    api("POST", "/api/tokens", 422, json={"ids": [-1]})
    api("POST", "/api/tokens", 422, json={"ids": [10**30]})
