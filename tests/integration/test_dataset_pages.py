"""The pages of data sets where no browser is needed: what is missing, what is odd, and what the address says."""

import json
import re
from pathlib import Path

import pytest

from services.dashboard.watch import Look, Watch
from shared import runs
from shared.schemas import Job
from shared.settings import Settings
from tests.integration.api import BAD, GOOD, Api


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages say whether the services are up; here none is, and finding that out takes a while each time."""
    monkeypatch.setattr(Watch, "latest", lambda _: Look({}, 0, []))


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def page(api: Api, path: str, status: int = 200) -> str:
    return api("GET", path, status, headers={"Accept": "text/html"}).text


def test_without_the_base_the_token_view_offers_to_fetch_it(settings: Settings, tmp_path: Path) -> None:
    api = Api(settings.model_copy(update={"hf_home": tmp_path / "empty"}))
    ref = api.upload()["reference"]
    assert "Tokens are not counted" in page(api, f"/datasets/{ref}")
    text = page(api, f"/datasets/{ref}/tokens")
    assert "is not in the Hugging Face cache" in text
    assert 'data-api="POST /api/runs"' in text
    run = runs.create(api.store, "fetch-1", "fetch", Job(repository=settings.base_model))
    text = page(api, f"/datasets/{ref}/tokens")
    assert f"/runs/{run.id}" in text and 'data-api="POST /api/runs"' not in text


def test_a_row_that_cannot_be_rendered_says_why(settings: Settings, tmp_path: Path) -> None:
    tagged = GOOD.replace(b'"4"', b'"<|channel|>final<|message|>4"')
    ref = Api(settings.model_copy(update={"hf_home": tmp_path / "empty"})).upload(tagged)["reference"]
    text = page(Api(settings), f"/datasets/{ref}/tokens")
    assert "cannot be rendered" in text and "channel tags" in text


def test_an_empty_place_says_what_to_do_next(api: Api) -> None:
    assert "No data set yet" in page(api, "/datasets")
    assert "A mix takes two data sets" in page(api, "/datasets/mix")
    ref = api.upload()["reference"]
    assert "Nothing was rejected" in page(api, f"/datasets/{ref}/rejected")
    assert "No row found" in page(api, f"/datasets/{ref}/rows?q=absent")


def test_odd_addresses_show_what_there_is(api: Api) -> None:
    ref = api.upload(GOOD * 15 + BAD)["reference"]
    for query in ("page=0", "page=-5", "page=99", f"page={10**30}", "page=x", "q=%00", "q=" + "x" * 3000):
        page(api, f"/datasets/{ref}/rows?{query}")
        page(api, f"/datasets/{ref}/rejected?{query}&kind=none")
        page(api, f"/datasets?sort=-nothing&{query}")
    assert "Row 14" in page(api, f"/datasets/{ref}/rows?page=99")
    for query in ("row=99", "row=-1", "policy=none", "effort=huge", "max_length=-3", "example=7", "example=1&part=999"):
        page(api, f"/datasets/{ref}/tokens?{query}")
    assert "no example 7" in page(api, f"/datasets/{ref}/tokens?example=7")
    for query in ("share=5", "share=x", "share=nan", "total=-1", "reasoning=none", f"reasoning={ref}&direct={ref}"):
        page(api, f"/datasets/mix?{query}")
    api.upload(GOOD * 15, "name=same")
    page(api, "/datasets/mix")
    assert "nothing to mix" in page(api, f"/datasets/mix?direct={ref}&share=nan")
    page(api, f"/datasets/{ref}/rows/15", 404)
    page(api, "/datasets/none/rows", 404)
    page(api, "/datasets/..%2F..", 404)
    page(api, "/datasets/NO!", 400)


def test_an_adapter_that_learned_from_it_is_linked(api: Api) -> None:
    ref = api.upload()["reference"]
    adapter = api.adapter()
    card = api.store.adapter(adapter) / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "dataset": ref}))
    assert f'href="/adapters/{adapter}"' in page(api, f"/datasets/{ref}")
    assert f'href="/adapters/{adapter}"' not in page(api, f"/datasets/{api.upload(GOOD * 2)['reference']}")


def test_a_mix_begins_with_two_data_sets_of_one_kind(api: Api) -> None:
    texts = [api.upload(f'{{"text": "{word}"}}\n'.encode(), f"name={word}")["reference"] for word in ("once", "upon")]
    talk = api.upload(query="name=talk")["reference"]
    text = api("GET", f"/datasets/mix?reasoning={texts[0]}", 200, headers={"Accept": "text/html"}).text
    assert re.findall(r'value="(\S+)" selected', text) == texts
    assert talk in text and "thinking, so the mix" not in text


def test_a_deleted_parent_of_a_mix_is_named_without_a_link(api: Api) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    first = api.upload(GOOD * 9, "name=one")["reference"]
    second = api.upload(json.dumps(row).encode() * 1 + b"\n" + GOOD * 5, "name=two")["reference"]
    mixed = api("POST", "/api/datasets/mix", 201, json={"reasoning": first, "direct": second, "name": "both"}).json
    api("DELETE", f"/api/datasets/{second}", 204)
    text = page(api, f"/datasets/{mixed['reference']}")
    assert f'<a href="/datasets/{first}">' in text
    assert f"{second} <span" in text and f'<a href="/datasets/{second}">' not in text


PAIR = b'{"prompt": "2+2?", "chosen": "<think>Easy.</think>four", "rejected": "five"}\n'


def test_a_preference_is_shown_with_both_answers_and_as_tokens(api: Api) -> None:
    ref = api.upload(PAIR * 2, "name=pairs")["reference"]
    for path in ("", "/rows", "/rows/0", "/tokens", "/tokens?policy=all&max_length=80"):
        page(api, f"/datasets/{ref}{path}")
    assert "<dt>Kind</dt><dd>preferences</dd>" in page(api, f"/datasets/{ref}")
    row = page(api, f"/datasets/{ref}/rows/0")
    assert row.index("Chosen") < row.index("four") < row.index("<h3>Rejected") < row.index("five")
    tokens = page(api, f"/datasets/{ref}/tokens")
    assert "<h3>Chosen</h3>" in tokens and "<h3>Rejected</h3>" in tokens and "Policy" not in tokens
    assert 'value="preferences" checked' in page(api, f"/runs/new?dataset={ref}")


def test_a_text_is_shown_whole_and_parted_into_examples(api: Api) -> None:
    ref = api.upload(b"Once upon a time there was a wheel.\n\nIt turned.\fThe end.", "filename=tale.txt")["reference"]
    overview = page(api, f"/datasets/{ref}")
    assert "Turns" not in overview and "With thinking" not in overview and "Tokens in a text" in overview
    assert "It turned." in page(api, f"/datasets/{ref}/rows") and "8 characters" in page(api, f"/datasets/{ref}/rows/1")
    tokens = page(api, f"/datasets/{ref}/tokens?max_length=6")
    assert "Example 3" in tokens and "Policy" not in tokens and "Effort" not in tokens and "Cut at" not in tokens
    assert 'value="text" checked' in page(api, f"/runs/new?dataset={ref}")


def test_pages_of_conversations_stay_what_they_were_beside_other_kinds(api: Api) -> None:
    api.upload(PAIR, "name=pairs")
    ref = api.upload()["reference"]
    assert "Policy" in page(api, f"/datasets/{ref}/tokens") and "analysis+final" in page(api, f"/datasets/{ref}/tokens")
    assert 'value="tiny" checked' in page(api, f"/runs/new?dataset={ref}")
    listed = page(api, "/datasets")
    assert ">Preference</td>" in listed and ">Messages</td>" in listed
