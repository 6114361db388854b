"""What the tests of runs do again and again: ask for a run on some data set, and read its curve."""

import pytest
from playwright.sync_api import Page, expect

from services.cli.client import Client
from tests.browser import runs_data
from tests.browser.conftest import Site

SLOW = 240_000  # milliseconds for what a busy machine trains in a few seconds


@pytest.fixture
def dataset(site: Site) -> str:
    return runs_data.dataset(site)


def submit(site: Site, dataset: str, **overrides: object) -> str:
    body = {"kind": "train", "dataset": dataset, "recipe": "tiny", "name": "asked", "overrides": overrides}
    return Client(site.url, key=site.key).post("/runs", body)["id"]


def table(page: Page) -> list[list[str]]:
    """The rows of the curve's table of values."""
    details = page.locator("details.values")
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    expect(page.locator("#values tbody tr").first).to_be_visible()
    return page.locator("#values tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def shows_steps(page: Page, count: int) -> None:
    """The curve has each step from 1 to `count`, once."""
    expect(page.locator("#readout")).to_contain_text(f"Step {count}")
    assert [int(row[0]) for row in table(page)] == list(range(1, count + 1))
