"""The queue in a browser: what runs, what waits, and how its order is changed."""

from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect

from services.cli.client import Client
from shared import runs
from tests.browser import runs_data
from tests.browser.conftest import Site, accessible, fits


def names(page: Page) -> list[str]:
    return page.locator("table.waits tbody td:nth-child(2)").all_inner_texts()


def test_an_empty_queue_says_what_to_do(page: Page, site: Site) -> None:
    for run_id, _ in runs.in_state(site.store, "queued", "running"):
        runs.request_cancel(site.store, run_id)
    page.goto("/queue")
    expect(page.get_by_role("heading", name="Nothing runs and nothing waits")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("link", name="Start a training run")).to_have_attribute("href", "/runs/new")


def test_what_waits_is_put_in_another_order_by_keyboard_and_cancelled(
    page: Page, visitor: Callable[..., BrowserContext], site: Site
) -> None:
    dataset, client = runs_data.dataset(site), Client(site.url, key=site.key)
    body = {"kind": "train", "dataset": dataset, "recipe": "tiny", "overrides": {"steps": 900}}
    ids = {name: client.post("/runs", {**body, "name": name})["id"] for name in ("now", "first", "second", "third")}
    try:
        page.goto("/queue")
        expect(page.locator(f"[id='{ids['now']}'] .state")).to_have_text("running")
        expect(page.locator("table.waits tbody tr")).to_have_count(3)
        assert names(page) == ["first", "second", "third"]
        page.get_by_role("button", name="Move third to the front").press("Enter")
        expect(page.locator("table.waits tbody tr:first-child")).to_contain_text("third")
        assert names(page) == ["third", "first", "second"]
        page.get_by_role("button", name="Move first down").press("Enter")
        expect(page.locator("table.waits tbody tr:last-child")).to_contain_text("first")
        assert [item["name"] for item in client.get("/queue")["items"]] == ["third", "second", "first"]
        expect(page.get_by_role("button", name="Move third up")).to_be_disabled()
        page.goto(f"/runs/{ids['second']}")
        expect(page.get_by_text("It is number 2 in the queue")).to_be_visible()
        expect(page.locator("#top")).to_contain_text("Before it: now (train, running), third (train, queued)")
        page.goto("/queue")
        page.get_by_role("button", name="Cancel second").press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).last.click()
        expect(page.locator("table.waits tbody tr")).to_have_count(2)
        assert runs.read_status(site.store, ids["second"]).state == "cancelled"
        for scheme in ("light", "dark"):
            phone = visitor(color_scheme=scheme, viewport={"width": 390, "height": 844}).new_page()
            phone.goto("/queue")
            accessible(phone)
            fits(phone)
    finally:
        for run_id in reversed(ids.values()):
            if runs.read_status(site.store, run_id).state in ("queued", "running"):
                client.post(f"/runs/{run_id}/cancel")
