"""A person who has never seen Tandem: from the sign-in to the first answer of their own model, by clicking. Comes first, as
the stack is empty only once."""

import pytest
from playwright.sync_api import Page, expect

from shared import registry
from tests.browser.conftest import Site
from tests.conftest import ROOT

TRAINS = 240_000  # milliseconds that a busy machine may take for what takes thirty seconds


@pytest.mark.timeout(600)
def test_from_a_file_to_a_first_answer(site: Site, page: Page) -> None:
    if registry.adapters(site.store):
        pytest.skip("something has been trained on this stack already")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome to Tandem")
    page.get_by_role("link", name="Choose a file").click()

    page.set_input_files("input[type=file]", ROOT / "demo" / "conversations.jsonl")
    page.wait_for_url("**/datasets/conversations@*", timeout=60_000)
    expect(page.get_by_role("link", name="Rejected 0")).to_be_visible()
    page.get_by_role("link", name="Train on it").first.click()

    expect(page.get_by_role("radio", name="tiny")).to_be_checked()
    page.get_by_label("Name of the adapter").fill("first")
    page.get_by_role("button", name="Train first@v1").click()

    page.wait_for_url("**/runs/train-*", timeout=30_000)
    expect(page.locator(".verdict")).to_contain_text("Done", timeout=TRAINS)
    page.get_by_role("link", name="Chat with it").click()

    page.locator("main[data-ready]").wait_for()
    expect(page.locator("#model")).to_have_value("first@v1")
    page.get_by_label("Message", exact=True).fill("When are you open?")
    page.keyboard.press("Enter")
    expect(page.locator(".assistant .text").last).not_to_be_empty(timeout=60_000)
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("All is well")
    expect(page.get_by_role("link", name="first@v1").first).to_be_visible()
