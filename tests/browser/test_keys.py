"""The page Keys: a key is made, used and revoked; a link signs in another browser, once."""

# ruff: noqa: F811
import re
import subprocess
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from shared import auth
from tests.browser.alone import Alone, alone  # noqa: F401  # a fixture, used by its name
from tests.browser.conftest import Site, accessible, fits


def make(page: Page, name: str) -> str:
    page.get_by_role("textbox", name="For").fill(name)
    page.get_by_role("textbox", name="For").press("Enter")
    expect(page.locator("#made")).to_be_visible()
    return page.locator("#made [data-of=key]").inner_text()


def test_a_key_is_made_used_as_shown_and_refused_after_it_is_revoked(page: Page, site: Site) -> None:
    page.goto("/keys")
    key = make(page, "night job")
    assert re.fullmatch(r"tdm_[\w-]{43}", key)
    command = page.locator("#made pre").inner_text()
    said = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, text=True, timeout=90).stdout
    assert '"role":"assistant"' in said.replace(" ", ""), said
    page.reload()
    assert key not in page.content(), "it is shown once"
    row = page.get_by_role("row", name="night job")
    expect(row).to_contain_text(re.compile("just now|s ago"))
    expect(row).not_to_contain_text("never")
    row.get_by_role("button", name="Revoke the key for night job").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("refused from its next request on")
    dialog.get_by_role("button", name="Cancel").click()
    assert httpx.get(f"{site.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    row.get_by_role("button").click()
    dialog.get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    assert httpx.get(f"{site.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_a_key_is_copied(visitor: Callable[..., BrowserContext], site: Site) -> None:
    page = visitor(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto("/keys")
    key = make(page, "to be copied")
    page.get_by_role("button", name="Copy the key").click()
    assert page.evaluate("navigator.clipboard.readText()") == key
    page.get_by_role("button", name="Copy the call").click()
    call = page.evaluate("navigator.clipboard.readText()")
    assert call.startswith(f"curl {site.url}/v1/chat/completions") and key in call


def test_a_bad_name_is_refused_with_the_rule(page: Page, site: Site, troubles) -> None:
    troubles.forgive("400")
    before = len(auth.keys(site.store))
    page.goto("/keys")
    page.get_by_role("button", name="Make a key").click()
    assert page.get_by_role("textbox", name="For").evaluate("e => e.validity.valueMissing")
    page.get_by_role("textbox", name="For").fill("   ")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_text("A key needs a name of 1 to 80 characters")).to_be_visible()
    expect(page.locator("#made")).to_be_hidden()
    assert len(auth.keys(site.store)) == before


def test_a_name_is_text_whatever_is_in_it(page: Page) -> None:
    page.goto("/keys")
    name = """<img src=x onerror=alert(1)> "it's" {{ 7 * 7 }}"""
    make(page, name)
    expect(page.locator("#made")).to_contain_text(name)
    row = page.get_by_role("row").filter(has_text=name)
    row.get_by_role("button").click()
    expect(page.get_by_role("dialog")).to_contain_text(name)
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)


def test_a_link_signs_in_another_browser_once(page: Page, browser: Browser, site: Site) -> None:
    page.goto("/keys")
    page.get_by_role("button", name="Make a sign-in link").click()
    expect(page.locator("#linked")).to_be_visible()
    link = page.locator("#linked [data-of=url]").inner_text()
    phone, second = browser.new_context().new_page(), browser.new_context().new_page()
    phone.goto(link)
    expect(phone.get_by_role("button", name="Sign out")).to_be_visible()
    assert second.goto(link).status == 401
    phone.context.close()
    second.context.close()


def test_without_a_key_the_page_says_what_one_is_for(alone: Alone) -> None:
    alone.page.goto("/keys")
    expect(alone.page.get_by_role("heading", name="No key yet")).to_be_visible()
    accessible(alone.page)
    make(alone.page, "first")
    expect(alone.page.get_by_role("heading", name="No key yet")).to_have_count(0)
    expect(alone.page.get_by_role("row", name="first")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_is_accessible_and_fits(
    visitor: Callable[..., BrowserContext], site: Site, scheme: str, width: int
) -> None:
    page = visitor(color_scheme=scheme, viewport={"width": width, "height": 844}).new_page()
    page.goto("/keys")
    make(page, f"{scheme} {width}")
    page.get_by_role("button", name="Make a sign-in link").click()
    expect(page.locator("#linked")).to_be_visible()
    accessible(page)
    fits(page)


def test_the_keys_are_searched_and_sorted_by_the_address(page: Page, site: Site) -> None:
    ids = [auth.create_key(site.store, name)[1]["id"] for name in ("listed a", "listed b")]
    page.goto("/keys?q=listed&sort=name")
    rows = page.locator(".keys-table tbody tr")
    expect(rows.locator(".name")).to_have_text(["listed a", "listed b"])
    page.get_by_role("link", name="For").click()
    expect(rows.locator(".name")).to_have_text(["listed b", "listed a"])
    page.get_by_role("searchbox").fill("none of that name")
    expect(page.locator("#list")).to_contain_text("No key matches")
    for key in ids:
        auth.revoke_key(site.store, key)
