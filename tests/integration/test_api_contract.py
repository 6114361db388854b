"""The API keeps its own description: every operation is called, with good values and with odd ones, and each answer fits."""

from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from openapi_spec_validator import validate

from shared import auth, runs, sweeps
from shared.settings import Settings
from shared.sweep_schemas import SweepJob
from tests.integration.api import Api


@pytest.fixture
def api(settings: Settings) -> Api:
    """An API with one of everything."""
    api = Api(settings)
    chats = api.upload(b'{"messages": []}\n' + OPEN, f"name=chats&upload={UPLOAD}")["reference"]
    api.upload(CLOSED, "name=direct")
    api.adapter()
    api.export()
    api("PUT", "/api/aliases/production", 200, json={"target": "chats@v1"})
    api("PUT", "/api/aliases/production", 200, json={"target": "chats-v1-MXFP4.gguf"})
    api.run("train-1", "failed", dataset=chats)
    runs.append_event(api.store, "train-1", "metric", step=1, loss=2.5)
    runs.append_event(api.store, "train-1", "proof", supervised=3)
    (api.store.run("train-1") / "log.txt").write_text("words\n")
    asked = sweeps.submit(
        settings, api.store, SweepJob(dataset="direct", recipe="tiny", overrides={"validation_share": 0.5})
    )
    api.store.sweep(asked.id).rename(api.store.sweep("sweep-1"))
    auth.create_key(api.store, "to be revoked")
    api("POST", "/api/chats", 201, json=TALK)
    return api


UPLOAD = "0" * 32
OPEN = (
    b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "c"}], "tools": []}\n'
    * 4
)
CLOSED = b'{"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]}\n' * 4
ANSWERED = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
TALK = {
    "messages": [{"id": "a", "role": "user", "content": "b", "created": "2026-11-21T08:00:00.000Z"}],
    "heads": ["a"],
}
BODIES = {
    "/api/datasets/{ref}/rows": {"messages": ANSWERED},
    "/api/chats": TALK,
    "/api/chats/import": ANSWERED,
    "/api/chats/{chat_id}": {"title": "c"},
    "/api/tokens": {"ids": [200006, 17]},
    "/api/datasets/import": {"repository": "a/b"},
    "/api/datasets/mix": {"reasoning": "chats", "direct": "direct", "name": "both"},
    "/api/runs": {"kind": "train", "dataset": "chats", "recipe": "tiny"},
    "/api/runs/{run_id}/clone": {},
    "/api/runs/estimate": {"kind": "train", "dataset": "chats", "recipe": "tiny"},
    "/api/queue/{run_id}/move": {"to": 1},
    "/api/sweeps": {"dataset": "direct", "recipe": "tiny", "overrides": {"validation_share": 0.5}},
    "/api/aliases/{alias}": {"target": "chats@v1"},
    "/api/keys": {"name": "contract"},
}
FOR_PEOPLE = ("/api/sign-in-links",)  # who has a session; a key is refused


def names(api: Api) -> dict[str, dict[str, str]]:
    """Values for the parameters of a path, by the path's first word."""
    key = next(key["id"] for key in auth.keys(api.store) if key["name"] == "to be revoked")
    return {
        "datasets": {"ref": "chats", "upload": UPLOAD},
        "runs": {"run_id": "train-1"},
        "queue": {"run_id": "train-1"},
        "sweeps": {"sweep_id": "sweep-1"},
        "adapters": {"ref": "chats@v1", "file": "card.json"},
        "keys": {"key_id": key},
        "exports": {"file": "chats-v1-MXFP4.gguf"},
        "aliases": {"alias": "production"},
        "recipes": {"name": "tiny"},
        "chats": {"chat_id": next(api.store.chats().glob("*.json")).stem},
    }


def operations(api: Api) -> list[tuple[str, str]]:
    """(method, path) of each operation; what deletes comes last: aliases before what they point at, parts before the whole."""
    found = [(method.upper(), path) for path, methods in api.spec["paths"].items() for method in methods]
    return sorted(
        found,
        key=lambda operation: (
            operation[0] == "DELETE",
            "aliases" not in operation[1],
            -operation[1].count("/"),
            operation,
        ),
    )


def test_the_description_is_valid_openapi(api: Api) -> None:
    validate(api("GET", "/api/openapi.json", 200).json)


def test_every_operation_answers_as_described(api: Api) -> None:
    known = names(api)
    for method, template in operations(api):
        path = template.format(**known.get(template.split("/")[2], {})) if "{" in template else template
        given_body = {"json": BODIES[template]} if method in ("POST", "PUT", "PATCH") and template in BODIES else {}
        if (method, template) == ("POST", "/api/datasets"):
            given_body = {"data": OPEN}
        status = api(method, path, **given_body).status_code
        assert status in (200, 201, 204, 409) or template in FOR_PEOPLE, f"{method} {path} answers {status}"
        if method == "POST" and template.endswith("/resume"):
            runs.update(api.store, "train-1", state="failed")
    assert api.seen == set(operations(api))


def test_every_operation_is_described_for_a_person(api: Api) -> None:
    for path, methods in api.spec["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"].endswith("."), f"{method} {path}"
            assert {"401", "422"} <= set(operation["responses"]), f"{method} {path}"


odd = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=40)
numbers = st.one_of(st.integers(-(10**20), 10**20).map(str), st.text(max_size=8))


@bounds(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=odd, value=numbers, words=odd)
def test_odd_values_are_refused_as_described(api: Api, name: str, value: str, words: str) -> None:
    for method, template in operations(api):
        parts = [quote(name, safe="") if part.startswith("{") else part for part in template.split("/")]
        path = "/".join(parts)
        query = {
            parameter["name"]: value if parameter["schema"].get("type") == "integer" else words
            for parameter in api.spec["paths"][template][method.lower()].get("parameters", [])
            if parameter["in"] == "query"
        }
        rest = (
            {"json": {"kind": words, "name": value, "target": words, "overrides": {words: value}}}
            if method in ("POST", "PUT", "PATCH")
            else {}
        )
        answer = api(method, path, query_string=query, **rest)
        assert answer.status_code != 500, f"{method} {path} {query}"
