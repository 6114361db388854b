"""The pages of adapters and exports where something is missing: nothing made yet, parts of a lineage deleted, bare cards."""

import re

import pytest

from shared import registry, runs
from shared.schemas import Job
from shared.settings import Settings
from tests.integration.api import Api

HTML = {"Accept": "text/html"}


@pytest.fixture
def api(settings: Settings) -> Api:
    return Api(settings)


def words(api: Api, path: str, status: int = 200) -> str:
    """The text of a page, tags and white space taken out."""
    text = api("GET", path, status, headers=HTML).text
    assert "style=" not in text and "<script>" not in text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_an_empty_list_says_what_to_do_next(api: Api) -> None:
    for path, offers in (("/adapters", "/runs/new"), ("/exports", "/runs/new")):
        page = api("GET", path, 200, headers=HTML).text
        assert "yet" in page and f'href="{offers}"' in page
    adapter = api.adapter()
    assert f"/adapters/{adapter}#export" in api("GET", "/exports", 200, headers=HTML).text


def test_an_adapter_whose_run_and_data_are_gone_still_has_its_page(api: Api) -> None:
    adapter = api.adapter()
    api.export()
    page = words(api, f"/adapters/{adapter}")
    assert "chats@0 deleted" in page and "3 steps · deleted" in page and "None yet" in page
    assert "chats-v1-MXFP4.gguf" in page
    assert "this server runs tandem/tiny-gpt-oss" in page  # its base is another
    compare = words(api, f"/adapters/{adapter}/compare")
    assert "no held-out rows" in compare and "not measured" in words(api, "/exports/chats-v1-MXFP4.gguf")


def test_a_lora_file_is_not_told_to_hold_the_base_or_offered_for_an_alias(api: Api) -> None:
    adapter = api.adapter()
    page = words(api, f"/exports/{api.export('chats-v1-LoRA.gguf', encoding='LoRA')}")
    assert f"{adapter} for b, made" in page and "Point an alias at it" not in page and "Not made: MXFP4," in page
    page = words(api, f"/exports/{api.export()}")
    assert f"b with {adapter} in it, made" in page and "Point an alias at it" in page


def test_a_mixed_data_set_shows_what_it_was_mixed_of(api: Api) -> None:
    api.upload(b"".join(_row(n, "c") for n in range(8)), "name=slow")
    api.upload(b"".join(_row(n) for n in range(8)), "name=quick")
    body = {"reasoning": "slow", "direct": "quick", "name": "both"}
    mixed = api("POST", "/api/datasets/mix", 201, json=body).json
    with api.store.staging(api.store.adapters()) as staged:
        (staged / "adapter_model.safetensors").write_bytes(b"weights")
        card = registry.adapter_card(api.store, api.adapter()).model_dump(exclude={"version", "created"})
        reference = registry.publish_adapter(api.store, staged, card | {"dataset": mixed["reference"]}).reference
    page = api("GET", f"/adapters/{reference}", 200, headers=HTML).text
    for parent in mixed["parents"]:
        assert f'href="/datasets/{parent}"' in page


def test_what_runs_and_what_failed_is_told_until_it_is_done(api: Api) -> None:
    adapter = api.adapter()
    for run_id, state in (("export-1", "failed"), ("evaluate-1", "succeeded"), ("export-2", "running")):
        encoding = "F16" if run_id == "export-1" else "MXFP4"
        kind = "evaluate" if run_id.startswith("evaluate") else "export"
        runs.create(api.store, run_id, kind, Job(adapter=adapter, encoding=encoding))
        runs.update(api.store, run_id, state=state, reason="The disk is full." if state == "failed" else None)
    page = api("GET", f"/adapters/{adapter}", 200, headers=HTML).text
    assert "The disk is full." in page and 'href="/runs/export-2"' in page and "fast from:body" in page
    runs.create(api.store, "export-3", "export", Job(adapter=adapter, encoding="F16"))
    for run_id in ("export-2", "export-3"):
        runs.update(api.store, run_id, state="succeeded")
    page = api("GET", f"/adapters/{adapter}", 200, headers=HTML).text
    assert "The disk is full." not in page and "fast from:body" not in page


def test_an_alias_says_what_cannot_work(api: Api) -> None:
    adapter, gguf, merged = api.adapter(), api.export(), api.export("chats-v1-merged", encoding="merged")
    assert f"the newest export, {gguf}" in words(api, f"/adapters/aliases/gguf?target={adapter}")
    assert "is a folder for other programs" in words(api, f"/adapters/aliases/other?target={merged}")
    api.export("chats-v1-F16.gguf")
    api("PUT", "/api/aliases/gguf", 200, json={"target": gguf})
    assert "One GGUF file is served at a time" in words(api, "/adapters/aliases/other?target=chats-v1-F16.gguf")
    assert "points at chats-v1-MXFP4.gguf already" in words(api, f"/adapters/aliases/gguf?target={gguf}")
    assert "There is no alias of this name yet" in words(api, "/adapters/aliases/other")
    assert "no adapter and no export" in words(api, "/adapters/aliases/other?target=gone@v1", 404)
    words(api, "/adapters/aliases/No%20Name", 400)
    words(api, "/adapters/aliases/other?target=../../etc/passwd", 400)


def test_a_lora_is_downloaded_and_served_by_nobody_here(api: Api) -> None:
    adapter, gguf = api.adapter(), api.export()
    lora = api.export("chats-v1-LoRA.gguf", encoding="LoRA")
    assert registry.served_export(api.store, "gguf").file == gguf, "though the LoRA is newer"
    page = api("GET", f"/exports/{lora}", 200, headers=HTML).text
    assert f"--lora {lora}" in page and f'href="/api/exports/{lora}/download"' in page
    assert "Modelfile" not in page and "/chat?model=" not in page
    assert "is an adapter file for other programs" in words(api, f"/adapters/aliases/other?target={lora}")
    assert api("GET", f"/api/exports/{lora}/download", 200).data == b"GGUF and more"
    assert "needs a whole model" in api("GET", f"/api/exports/{lora}/modelfile", 409).json["error"]["message"]
    assert lora not in api("GET", f"/adapters/{adapter}/compare", 200, headers=HTML).text


def test_an_export_says_what_fell_back_and_how_fast_it_is(api: Api) -> None:
    api.adapter()
    file = api.export("chats-v1-Q4_K_M.gguf", encoding="Q4_K_M")
    measured = {"top1": 0.97, "kl": 0.0123, "speed": {"prompt": 812.4, "decode": 31.6, "device": "8 CPU cores"}}
    changes = {
        "fallbacks": {"output.weight": "Q8_0"},
        "fallback_share": 0.986,
        "tensors": {"Q5_0": {"count": 1, "bytes": 9}},
    }
    card = registry.export_card(api.store, file).model_copy(update={**changes, "parity": measured})
    staged = api.store.exports() / ".new"
    staged.write_bytes(b"")
    registry.publish_export(api.store, staged, card)
    page = words(api, f"/exports/{file}")
    assert "98.6 % of the weights" in page and "0.0123 nats" in page
    assert "812 tokens a second read, 32 answered, by llama.cpp on 8 CPU cores" in page


def test_a_previous_target_that_was_deleted_is_not_offered_back(api: Api) -> None:
    first, second = api.adapter(), api.adapter()
    for target in (first, second):
        api("PUT", "/api/aliases/production", 200, json={"target": target})
    assert f"back to {first}" in words(api, "/adapters/aliases/production")
    api("DELETE", f"/api/adapters/{first}", 204)
    page = words(api, "/adapters/aliases/production")
    assert "back to" not in page and "which has been deleted" in page
    assert "/undo" not in api("GET", "/adapters", 200, headers=HTML).text


def _row(number: int, thinking: str = "") -> bytes:
    said = f', "thinking": "{thinking}"' if thinking else ""
    question = f'{{"role": "user", "content": "a{number}{thinking}"}}'
    return f'{{"messages": [{question}, {{"role": "assistant", "content": "b"{said}}}]}}\n'.encode()
