"""The dashboard's API for what training has made: adapters, exports, and the aliases that point at them."""

import pytest

from shared.settings import Settings
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def test_an_alias_moves_and_goes_back(api: Api) -> None:
    first, second = api.adapter(), api.adapter()
    assert api("PUT", "/api/aliases/production", 200, json={"target": first}).json["before"] is None
    moved = api("PUT", "/api/aliases/production", 200, json={"target": second}).json
    assert moved == {"alias": "production", "target": second, "before": first}
    assert api("POST", "/api/aliases/production/undo", 200).json["target"] == first
    item = api("GET", "/api/aliases", 200).json["items"][0]
    assert [change["target"] for change in item["history"]] == [first, second, first]
    api("DELETE", "/api/aliases/production", 204)
    api("DELETE", "/api/aliases/production", 404)
    api("PUT", "/api/aliases/production", 404, json={"target": "chats@v9"})
    api("PUT", "/api/aliases/No%20Name", 400, json={"target": first})
    api("POST", "/api/aliases/unknown/undo", 404)


def test_a_removed_alias_keeps_its_history_and_comes_back(api: Api) -> None:
    adapter = api.adapter()
    api("PUT", "/api/aliases/production", 200, json={"target": adapter})
    api("DELETE", "/api/aliases/production", 204)
    assert api("GET", "/api/aliases", 200).json["items"] == []
    listed = api("GET", "/api/aliases?removed=true", 200).json
    assert [(item["alias"], item["target"]) for item in listed["items"]] == [("production", None)]
    assert [change["target"] for change in listed["items"][0]["history"]] == [adapter, None]
    assert api("POST", "/api/aliases/production/undo", 200).json["target"] == adapter
    assert api("GET", "/api/aliases?removed=true", 200).json["total"] == 1


def test_an_adapter_is_found_by_name_version_alias_and_bare_name(api: Api) -> None:
    first, second = api.adapter(), api.adapter()
    api("PUT", "/api/aliases/production", 200, json={"target": first})
    for ref, found in ((first, first), ("production", first), ("chats", second)):
        assert api("GET", f"/api/adapters/{ref}", 200).json["reference"] == found
    api("PUT", "/api/aliases/chats", 200, json={"target": first})
    assert api("GET", "/api/adapters/chats", 200).json["reference"] == first
    api("PUT", "/api/aliases/gguf", 200, json={"target": api.export()})
    for ref in ("gguf", "none", "chats@v9"):
        assert "There are: chats@v2, chats@v1" in api("GET", f"/api/adapters/{ref}", 404).json["error"]["message"]
    api("DELETE", "/api/adapters/chats", 400)  # what deletes is named in full
    api("DELETE", "/api/adapters/production", 400)


def test_the_files_of_an_adapter_are_listed_and_had_whole_and_in_parts(api: Api) -> None:
    adapter = api.adapter()
    listed = api("GET", f"/api/adapters/{adapter}/files", 200).json["items"]
    assert {"name": "adapter_model.safetensors", "bytes": 7} in listed
    address = "/api/adapters/chats/files/adapter_model.safetensors"
    assert api("GET", address, 200).data == b"weights"
    part = api.app.test_client().get(address, headers={"Authorization": f"Bearer {api.key}", "Range": "bytes=2-4"})
    assert (part.status_code, part.data) == (206, b"igh")
    for name in ("none", "..", "%2e%2e%2fcard.json", "..%2f..%2f..%2fkeys", ".hidden"):
        answer = api("GET", f"/api/adapters/{adapter}/files/{name}")
        assert answer.status_code == 404, name
    assert "There are: adapter_model" in api("GET", f"/api/adapters/{adapter}/files/none", 404).json["error"]["message"]


def test_what_an_alias_points_at_stays(api: Api) -> None:
    adapter, export = api.adapter(), api.export()
    for alias, target, path in (("a", adapter, f"/api/adapters/{adapter}"), ("b", export, f"/api/exports/{export}")):
        api("PUT", f"/api/aliases/{alias}", 200, json={"target": target})
        assert api("GET", path, 200).json["aliases"] == [alias]
        assert api("DELETE", path, 409).json["error"]["details"] == [alias]
        api("DELETE", f"/api/aliases/{alias}", 204)
        api("DELETE", path, 204)
        api("GET", path, 404)


def test_a_deleted_version_is_never_given_again(api: Api) -> None:
    assert api.adapter() == "chats@v1"
    api("DELETE", "/api/adapters/chats@v1", 204)
    assert api.adapter() == "chats@v2"
    assert [card["reference"] for card in api("GET", "/api/adapters", 200).json["items"]] == ["chats@v2"]


def test_an_adapter_that_a_run_needs_stays(api: Api) -> None:
    adapter = api.adapter()
    api.run("train-1", adapter=adapter)
    assert api("DELETE", f"/api/adapters/{adapter}", 409).json["error"]["details"] == ["train-1"]


def test_exports_are_downloaded_whole_and_in_parts(api: Api) -> None:
    file = api.export()
    assert api("GET", "/api/exports", 200).json["items"][0]["file"] == file
    whole = api("GET", f"/api/exports/{file}/download", 200)
    assert whole.data == b"GGUF and more"
    assert f"filename={file}" in whole.headers["Content-Disposition"]
    part = api.app.test_client().get(
        f"/api/exports/{file}/download", headers={"Authorization": f"Bearer {api.key}", "Range": "bytes=5-7"}
    )
    assert (part.status_code, part.data) == (206, b"and")
    text = api("GET", "/api/exports/chats-v1-MXFP4/modelfile", 200).text
    assert f"FROM ./{file}" in text
    assert "<|start|>assistant" in text
    api("GET", "/api/exports/none/download", 404)
