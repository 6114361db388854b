"""What holds for every page: light, accessible in both schemes, no wider than a phone, nothing from elsewhere."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext

from shared import registry, runs
from tests.browser.conftest import Site, accessible, fits

MOST_BYTES = 200_000  # as sent, without the chart library
SENT = """performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
    .filter(entry => !entry.name.includes("uPlot")).reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""
PAGES = (
    "/", "/chat", "/datasets", "/datasets/{dataset}", "/datasets/{dataset}/rows", "/datasets/{dataset}/rejected",
    "/datasets/{dataset}/tokens", "/datasets/mix", "/runs", "/runs/new", "/runs/sweeps", "/runs/sweeps/new", "/runs/speed", "/runs/{run}",
    "/runs/compare?run={run}", "/adapters",
    "/adapters/{adapter}", "/adapters/{adapter}/compare", "/adapters/aliases/production", "/exports", "/exports/{export}", "/queue",
    "/system", "/system/disk", "/system/cache", "/system/settings", "/keys",
)  # fmt: skip


@pytest.mark.parametrize("template", PAGES)
def test_a_page_is_light_accessible_and_fits(
    trained: Site, visitor: Callable[..., BrowserContext], template: str
) -> None:
    card = registry.adapter_card(trained.store, registry.aliases(trained.store)["production"])
    trains = [run for run in runs.ids(trained.store) if run == card.run]
    path = template.format(
        dataset=card.dataset, run=trains[0], adapter=card.reference, export=registry.exports(trained.store)[0].file
    )
    for scheme, width in (("light", 1440), ("dark", 390)):
        page = visitor(color_scheme=scheme, viewport={"width": width, "height": 850}).new_page()
        answer = page.goto(path, wait_until="load")
        assert answer and answer.status == 200
        assert "unsafe" not in answer.headers["content-security-policy"]
        page.wait_for_timeout(300)  # what its modules ask for
        assert page.evaluate(SENT) < MOST_BYTES
        accessible(page)
        fits(page)
        page.close()
