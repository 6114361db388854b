"""What the tests of the chat do again and again: open it, ask, read."""

import json
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Site

QUESTION = "When are you open?"


def opened(page: Page, path: str = "/chat") -> Page:
    page.goto(path)
    page.wait_for_selector("main[data-ready]")
    return page


def ask(page: Page, text: str = QUESTION) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".assistant .text")


def asked_and_answered(page: Page, text: str = QUESTION, number: int = 0) -> None:
    ask(page, text)
    expect(page.locator(".assistant .facts").nth(number)).to_contain_text("tokens")


def kept(site: Site, page: Page) -> dict:
    """The conversation of the page as it is on the disk."""
    return json.loads(site.store.chat(page.url.rpartition("/")[2]).read_text())


def bring(page: Page, tmp_path: Path, messages: list[dict] | str) -> None:
    file = tmp_path / ("chat.json" if isinstance(messages, list) else "chat.md")
    file.write_text(json.dumps(messages) if isinstance(messages, list) else messages)
    page.locator("#import").set_input_files(file)
    page.wait_for_url("**/chat/*")
