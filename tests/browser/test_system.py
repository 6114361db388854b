"""The pages under System: what is up, how busy the machine is, what fills the disk, what is broken in the cache."""

# ruff: noqa: F811
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from services.dashboard import health
from shared import runs
from shared.schemas import Job, now
from shared.store import write_json
from tests.browser.alone import Alone, alone  # noqa: F401  # a fixture, used by its name
from tests.browser.conftest import Site, Troubles, accessible, fits
from tests.hub import Cached, serving, work

PAGES = ("/system", "/system/disk", "/system/cache", "/system/settings")


def done(store, run_id: str, size: int = 3 << 20) -> str:
    """A run that succeeded and left a checkpoint of so many bytes."""
    runs.create(store, run_id, "train", Job(dataset="chats@0", recipe="tiny"))
    runs.update(store, run_id, state="succeeded", ended=now())
    (store.run(run_id) / "checkpoints" / "checkpoint-1").mkdir()
    (store.run(run_id) / "checkpoints" / "checkpoint-1" / "optimizer.pt").write_bytes(b"0" * size)
    return run_id


# ---- services


def test_a_dead_service_is_named_with_what_to_do(page: Page, site: Site) -> None:
    page.goto("/system")
    expect(page.get_by_text("all up", exact=True)).to_be_visible()
    llama = page.get_by_role("group", name="llama")
    expect(llama.get_by_text("docker compose")).to_have_count(0)
    site.running._call("stopProcess", "llama")
    try:
        expect(llama.get_by_text("went down")).to_be_visible()
        expect(llama).to_contain_text("Exports do not answer; adapters and the base model do.")
        expect(llama.get_by_text("docker compose restart llama")).to_be_visible()
        expect(llama.get_by_text(".local/logs/llama.log")).to_be_visible()
        expect(page.get_by_text("llama not up").first).to_be_visible()
        accessible(page)
    finally:
        site.running._call("startProcess", "llama")
    expect(llama.get_by_text("docker compose")).to_have_count(0)
    expect(page.get_by_text("all up", exact=True)).to_be_visible()


def test_a_server_that_has_lent_its_gpu_is_no_trouble(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(state: str, detail: str) -> None:
        monkeypatch.setattr(health, "_http", lambda _: {"state": state, "detail": detail, "since": now()})

    told("asleep", "its GPU is lent to train-1")
    write_json(alone.store.workers() / "trainer-box.json", {"busy": "train-1", "kind": "train"})
    page = alone.page
    page.goto("/system")
    expect(page.get_by_role("group", name="inference")).to_contain_text("fell asleep just now")
    expect(page.get_by_role("group", name="inference").get_by_text("docker compose")).to_have_count(0)
    accessible(page)
    page.route(
        "**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "base", "root": "base", "kind": "base"}]})
    )
    page.goto("/chat")
    note = page.get_by_text("its GPU is lent to train-1. Base and adapters answer again")
    expect(note).to_be_visible()
    accessible(page)
    fits(page)
    told("up", "")
    expect(note).to_be_hidden(timeout=30_000)


def test_a_base_model_that_is_not_there_is_offered_to_be_fetched(alone: Alone) -> None:
    alone.page.goto("/system")
    expect(alone.page.get_by_text("is not in the Hugging Face cache")).to_be_visible()
    alone.page.get_by_role("button", name="Fetch it").click()
    alone.page.wait_for_url("**/runs/fetch-*")
    alone.page.goto("/system")
    expect(alone.page.get_by_role("link", name="It is being fetched")).to_be_visible()
    assert [runs.read_spec(alone.store, run).job.repository for run in runs.ids(alone.store)] == [
        alone.settings.base_model
    ]


# ---- over time


def test_a_machine_without_a_gpu_shows_the_rest_and_says_so(page: Page) -> None:
    page.goto("/system")
    expect(page.get_by_text("No service that is up sees a GPU.")).to_be_visible()
    memory = page.get_by_role("img", name=re.compile(r"Memory of the machine. now [\d.]+ GiB of [\d.]+ GiB, at most"))
    expect(memory).to_be_visible()
    assert page.locator("#charts figure").count() == 3
    page.get_by_role("navigation", name="Time shown").get_by_role("link", name="6 hours").click()
    page.wait_for_url("**/system?seconds=21600")
    expect(page.get_by_role("link", name="6 hours")).to_have_attribute("aria-current", "true")
    expect(memory).to_be_visible()


def test_each_gpu_has_its_line_and_its_value_under_the_pointer(page: Page) -> None:
    times = list(range(1_700_000_000, 1_700_000_000 + 3600, 15))
    flat = [1.0] * len(times)

    def gpu(uuid: str, held_by: str, use: float) -> dict:
        values = {"memory_used": [8 * 2.0**30] * len(times), "use_percent": [10.0] * (len(times) - 1) + [use]}
        return {"uuid": uuid, "name": "Card", "memory_total": 16 << 30, "held_by": [held_by], **values}

    body = {
        "time": times,
        "free": flat,
        "memory_used": flat,
        "load": flat,
        "memory_total": 9,
        "disk_total": 9,
        "cores": 2,
    }
    body["gpus"] = [gpu("a", "trainer", 97.0), gpu("b", "inference", 3.0)]
    page.route("**/api/system/history*", lambda route: route.fulfill(json=body))
    page.goto("/system")
    use = page.locator("figure", has_text="GPU use")
    expect(use).to_contain_text("GPU 0, Card, trainer 97 %")
    expect(use).to_contain_text("GPU 1, Card, inference 3 %")
    expect(page.locator("figure", has_text="GPU memory")).to_contain_text("8.0 GiB of 16.0 GiB")
    use.locator(".u-over").hover()
    expect(use).to_contain_text("GPU 0, Card, trainer 10 %")


# ---- the disk


def test_checkpoints_are_deleted_and_the_run_still_opens(alone: Alone) -> None:
    page, run = alone.page, done(alone.store, "train-1")
    page.goto("/system/disk")
    expect(page.get_by_role("listitem").filter(has_text="Checkpoints of runs")).to_contain_text("3.0 MiB")
    row = page.get_by_role("row", name=run)
    expect(row).to_contain_text("It succeeded")
    row.get_by_role("button", name=f"Delete checkpoints {run}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Lost: nothing that is used.")
    dialog.get_by_role("button", name="Cancel").click()
    assert list(alone.store.run(run).glob("checkpoints/*")), "nothing goes before it is confirmed"
    row.get_by_role("button", name=f"Delete checkpoints {run}").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    assert not list(alone.store.run(run).glob("checkpoints/*"))
    expect(page.get_by_role("listitem").filter(has_text="Checkpoints of runs")).to_contain_text("0 B")
    page.goto(f"/runs/{run}")
    expect(page.get_by_text("succeeded").first).to_be_visible()


def test_all_are_selected_and_deleted_also_what_another_tab_has_deleted(
    alone: Alone,
    troubles: Troubles,
) -> None:
    page = alone.page
    troubles.forgive("404")
    for i in range(3):
        done(alone.store, f"train-{i}", (i + 1) << 20)
    page.goto("/system/disk")
    button = page.locator("#delete")
    expect(button).to_be_disabled()
    page.get_by_role("checkbox", name="checkpoints train-2").check()
    expect(button).to_have_text("Delete 1 selected (3.0 MiB)")
    page.get_by_label("Select all").check()
    expect(button).to_have_text("Delete 3 selected (6.0 MiB)")
    page.request.delete("/api/runs/train-1", headers={"Sec-Fetch-Site": "same-origin"})
    button.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Nothing can go without loss")).to_be_visible()
    assert not list(alone.store.root.glob("runs/*/checkpoints/*"))
    assert len(runs.ids(alone.store)) == 2


# ---- the cache


def test_a_broken_file_is_found_repaired_and_gone(alone: Alone) -> None:
    page, cached = alone.page, Cached(alone.settings.hf_home)
    blob = cached.blob("model-2.safetensors")
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-3])
    page.goto("/system/cache")
    item = page.get_by_role("article", name="someone/something")
    expect(item).to_contain_text("1 problem.")
    expect(item.get_by_text("model-2.safetensors")).to_be_visible()
    accessible(page)
    item.get_by_role("button", name="Repair").click()
    expect(item.get_by_role("link", name="Repair queued")).to_be_visible()
    (run,) = runs.ids(alone.store)
    blob.write_bytes(whole)
    with serving(cached) as hub:
        blob.write_bytes(whole[:-3])
        code, _, result = work(alone.settings, run, hub)
    assert (code, result) == (0, "1 repaired")
    runs.finish(alone.store, run, "succeeded", result=result)
    expect(item).to_contain_text("1 repaired")
    expect(item.get_by_text("problem")).to_have_count(0)
    item.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_contain_text("fetched again")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(item.get_by_role("link", name="Removal queued")).to_be_visible()


def test_what_a_check_found_is_shown_until_it_is_repaired(alone: Alone) -> None:
    cached = Cached(alone.settings.hf_home)
    blob = cached.blob("config.json")
    blob.write_bytes(b"[]")
    alone.page.goto("/system/cache")
    item = alone.page.get_by_role("article", name="someone/something")
    expect(item.get_by_role("button", name="Repair")).to_have_count(0)
    item.get_by_role("button", name="Check").click()
    expect(item.get_by_role("link", name="Check queued")).to_be_visible()
    (run,) = runs.ids(alone.store)
    _, (warning,), result = work(alone.settings, run)
    runs.finish(alone.store, run, "succeeded", result=result)
    expect(item.get_by_text("The last check found 1 broken.")).to_be_visible()
    expect(item.get_by_text(warning)).to_be_visible()
    expect(item.get_by_role("button", name="Repair")).to_be_visible()


def test_the_base_model_is_checked_and_cannot_be_removed(page: Page, site: Site) -> None:
    page.goto("/system/cache")
    item = page.get_by_role("article", name="tandem/tiny-gpt-oss")
    expect(item.get_by_role("button", name="Remove")).to_be_disabled()
    expect(item).to_contain_text("this Tandem's base model")
    item.get_by_role("button", name="Check").click()
    expect(item).to_contain_text(re.compile(r"nothing broken in \d+ files"), timeout=60_000)


def test_an_empty_cache_offers_the_base_model_and_a_bad_name_is_refused(alone: Alone) -> None:
    page = alone.page
    page.goto("/system/cache")
    expect(page.get_by_role("heading", name="The cache is empty")).to_be_visible()
    accessible(page)
    page.get_by_label("Repository").fill("no slash")
    page.get_by_label("Repository").press("Enter")
    assert page.get_by_label("Repository").evaluate("e => e.validity.patternMismatch")
    assert runs.ids(alone.store) == []
    page.get_by_label("Repository").fill("owner/name")
    page.get_by_label("Kind").select_option("dataset")
    page.get_by_role("button", name="Fetch", exact=True).click()
    page.wait_for_url("**/runs/fetch-*")
    job = runs.read_spec(alone.store, runs.ids(alone.store)[0]).job
    assert (job.repository, job.repository_type, job.action) == ("owner/name", "dataset", "fetch")


# ---- versions and settings


def test_a_bug_report_is_copied_and_has_no_secret(visitor: Callable[..., BrowserContext], site: Site) -> None:
    page = visitor(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto("/system/settings")
    expect(page.get_by_role("row", name="TANDEM_CONTEXT_TOKENS")).to_contain_text("longest prompt")
    page.get_by_role("button", name="Copy for a bug report").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    for wanted in ("tandem 0.", "torch ", "TANDEM_BASE_MODEL=tandem/tiny-gpt-oss", "trainer: up", "GPU: none"):
        assert wanted in text
    assert site.key not in text and "tdm_" not in text


# ---- every page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit_a_phone(
    visitor: Callable[..., BrowserContext], site: Site, scheme: str
) -> None:
    wide = visitor(color_scheme=scheme).new_page()
    narrow = visitor(color_scheme=scheme, viewport={"width": 390, "height": 844}).new_page()
    for path in PAGES:
        for page in (wide, narrow):
            page.goto(path)
            expect(page.locator("#charts figure, section:not(:has(#charts)) h2").first).to_be_visible()
            fits(page)
        accessible(wide)
    accessible(narrow)


def test_everything_is_reached_by_keyboard(alone: Alone) -> None:
    page = alone.page
    done(alone.store, "train-1")
    page.goto("/system/disk")
    page.get_by_role("checkbox", name="checkpoints train-1").focus()
    page.keyboard.press("Space")
    expect(page.locator("#delete")).to_be_enabled()
    page.locator("#delete").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert runs.exists(alone.store, "train-1")
    assert list(alone.store.run("train-1").glob("checkpoints/*"))
    page.locator("#delete").press("Enter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing can go without loss")).to_be_visible()
