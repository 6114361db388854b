"""The start page, on a stack where something has been learned."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Site, accessible, fits


@pytest.fixture
def home(trained: Site, page: Page) -> Page:
    page.goto("/")
    return page


def test_it_says_that_all_is_well_and_what_was_learned_last(home: Page) -> None:
    expect(home.get_by_role("heading", level=1)).to_have_text("All is well")
    learned = home.get_by_role("heading", name="Learned last").locator("xpath=../..")
    expect(learned.get_by_role("link", name="Talk to it")).to_have_attribute(
        "href", re.compile(r"/chat\?model=\w+@v\d")
    )
    expect(home.get_by_role("link", name="All services up")).to_be_visible()


def test_a_service_that_is_down_is_named_and_comes_back(home: Page, site: Site) -> None:
    site.running.end_service("llama")
    try:
        expect(home.get_by_role("heading", level=1)).to_have_text("Llama is not up", timeout=30_000)
        expect(home.get_by_role("link", name="llama not up")).to_be_visible(timeout=30_000)
    finally:
        site.running.start_service("llama")
    expect(home.get_by_role("heading", level=1)).to_have_text("All is well", timeout=30_000)


def test_what_it_proposes_leads_somewhere(home: Page) -> None:
    for link in home.locator(".steps a, .learned a, .strip a").all():
        answer = home.request.get(str(link.get_attribute("href")))
        assert answer.status == 200, link.get_attribute("href")


def test_a_dashboard_that_is_gone_is_said_and_the_page_goes_on_when_it_is_back(
    home: Page, site: Site, troubles
) -> None:
    troubles.forgive(r"503|Failed to load resource|ERR_")
    site.running.end_service("dashboard")
    try:
        expect(home.get_by_text("Tandem does not answer.")).to_be_visible(timeout=30_000)
        expect(home.get_by_role("heading", name="Learned last")).to_be_visible()  # nothing is lost meanwhile
    finally:
        site.running.start_service("dashboard")
    expect(home.get_by_text("Tandem does not answer.")).to_be_hidden(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_is_accessible_and_fits(
    trained: Site, visitor: Callable[..., BrowserContext], scheme: str, width: int
) -> None:
    page = visitor(color_scheme=scheme, viewport={"width": width, "height": 850}).new_page()
    page.goto("/")
    expect(page.get_by_role("heading", name="Recent runs")).to_be_visible()
    accessible(page)
    fits(page)


def test_the_menu_opens_on_a_phone_by_keyboard(trained: Site, visitor: Callable[..., BrowserContext]) -> None:
    page = visitor(viewport={"width": 390, "height": 850}).new_page()
    page.goto("/")
    expect(page.get_by_role("link", name="Adapters")).to_be_hidden()
    page.get_by_role("button", name="Menu").press("Enter")
    page.get_by_role("link", name="Adapters").press("Enter")
    page.wait_for_url("**/adapters")


def test_pages_without_a_session_lead_to_the_sign_in(site: Site, browser) -> None:
    context = browser.new_context(base_url=site.url)
    page = context.new_page()
    page.goto("/runs")
    expect(page.get_by_role("heading", name="Sign in first")).to_be_visible()
    context.close()
