"""A page is used before its scripts have run: on a slow line what was clicked is done late, once, and never lost."""

import json
import re
import shutil
import time
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from shared import registry
from tests.browser.conftest import Site

LATE = 1.5  # seconds


def late(route: Route) -> None:
    time.sleep(LATE)
    route.continue_()


def test_a_form_sent_before_the_scripts_is_sent_once_when_they_are_there(trained: Site, page: Page) -> None:
    target = registry.aliases(trained.store)["production"]
    sent = []
    page.on("request", lambda request: sent.append(request.method) if "/api/aliases" in request.url else None)
    page.route("**/app.js", late)
    page.goto(f"/adapters/aliases/early?target={target}", wait_until="commit")
    page.get_by_role("button", name=f"Point early at {target}").click()
    expect(page.get_by_role("status").filter(has_text=f"early points at {target} now")).to_be_visible()
    assert sent == ["PUT"]
    registry.remove_alias(trained.store, "early")


def test_a_button_pressed_before_the_scripts_asks_when_they_are_there(trained: Site, page: Page) -> None:
    page.route("**/app.js", late)
    page.goto(f"/adapters/{registry.aliases(trained.store)['production']}", wait_until="commit")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_what_is_searched_for_before_the_scripts_is_found_when_they_are_there(trained: Site, page: Page) -> None:
    page.route("**/htmx*", late)
    page.goto("/adapters", wait_until="commit")
    page.get_by_role("searchbox").fill("nobody has this name")
    expect(page.locator("#list")).to_contain_text("No adapter matches")
    expect(page).to_have_url(re.compile("nobody"))


def test_a_file_chosen_before_the_scripts_is_read_when_they_are_there(
    trained: Site, page: Page, tmp_path: Path
) -> None:
    row = {"messages": [{"role": "user", "content": "Early?"}, {"role": "assistant", "content": "Early."}]}
    (tmp_path / "early.jsonl").write_text(json.dumps(row) + "\n")
    page.route("**/datasets.js", late)
    page.goto("/datasets", wait_until="commit")
    page.set_input_files("input[type=file]", tmp_path / "early.jsonl")
    expect(page).to_have_url(re.compile("/datasets/early@"), timeout=60_000)
    shutil.rmtree(trained.store.datasets() / "early")


def test_a_question_asked_before_the_scripts_is_answered(trained: Site, page: Page) -> None:
    page.route("**/chat/page.js*", late)
    page.goto("/chat", wait_until="commit")
    page.locator("#ask textarea").fill("When are you open?")
    page.locator("#ask").get_by_role("button", name=re.compile("Send")).click()
    expect(page.locator("#messages")).to_contain_text("When are you open?", timeout=30_000)
    expect(page).to_have_url(re.compile(r"/chat/[\w-]+$"), timeout=30_000)
