"""Exports in a browser: one made from the adapter's page, what it says of itself, and how it is served and compared."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from shared import registry
from tests.browser.conftest import Site, Troubles, accessible, fits

PATIENCE = 240_000  # milliseconds that an export, or the loading of one, may take on a busy machine


@pytest.fixture
def gguf(trained: Site) -> Iterator[str]:
    """What the GGUF server's alias points at; put back afterwards."""
    before = registry.aliases(trained.store)["gguf"]
    yield before
    registry.point_alias(trained.store, "gguf", before)


def test_an_export_is_made_on_the_adapters_page_and_compared_with_its_adapter(
    trained: Site, gguf: str, troubles: Troubles, page: Page
) -> None:
    troubles.forgive("503")  # the GGUF server while it loads
    adapter = registry.export_card(trained.store, gguf).adapter
    page.goto(f"/adapters/{adapter}")
    page.get_by_role("radio", name=re.compile("^MXFP4")).check()
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("Queued; it shows above while it runs.")).to_be_visible()
    expect(page.get_by_role("link", name="Export as MXFP4")).to_be_visible()
    made = page.get_by_role("group", name="Lineage").get_by_role("link", name=re.compile("Export .*MXFP4"))
    expect(made).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("link", name="Export as MXFP4")).to_have_count(0, timeout=PATIENCE)
    made.click()
    agreement = page.get_by_role("region", name="Agreement with the adapter")
    expect(agreement).to_contain_text(re.compile(r"\d\d\.\d %.*of the time the likeliest next token is the adapter's"))
    expect(agreement).to_contain_text("same")
    expect(page.get_by_role("region", name="Tensors by type").get_by_role("row", name="MXFP4")).to_be_visible()

    file = page.get_by_role("heading", level=1).inner_text()
    page.goto(f"/adapters/{adapter}/compare#q=When are you open?&m={file}")
    page.get_by_role("button", name="Compare", exact=True).click()
    cell = page.locator("article.cell").first
    expect(cell.get_by_role("alert")).to_contain_text(f"not {file}")
    cell.get_by_role("button", name="Point gguf at it").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"It is {gguf} now")
    page.get_by_role("dialog").get_by_role("button", name="Point gguf").click()
    expect(page.locator("#told")).to_have_text("1 of 1 answered.", timeout=PATIENCE)
    assert cell.locator("code").get_attribute("title") == registry.export_card(trained.store, file).sha256
    page.locator("#moved").get_by_role("button", name="Undo").click()
    expect(page.locator("#moved")).to_contain_text("Undone.")
    assert registry.aliases(trained.store)["gguf"] == gguf


def test_the_list_is_searched_and_says_what_is_served(trained: Site, gguf: str, page: Page) -> None:
    page.goto("/exports")
    row = page.locator("#list tbody tr").filter(has_text=gguf)
    expect(row).to_contain_text("served now")
    expect(row).to_contain_text("%")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.locator("#list")).to_contain_text("No export matches")
    expect(page).to_have_url(re.compile("q=nothing"))
    page.get_by_role("searchbox").fill("gguf")
    expect(row).to_be_visible()


def test_the_page_says_how_to_serve_it_and_gives_file_and_modelfile(trained: Site, gguf: str, page: Page) -> None:
    card = registry.export_card(trained.store, gguf)
    page.goto(f"/exports/{gguf.removesuffix('.gguf')}")
    expect(page.get_by_role("heading", level=1)).to_have_text(gguf)
    serve = page.get_by_role("region", name="Serve it")
    for text in (
        f"llama-server -m {gguf}",
        "ollama create",
        "curl -C -",
        f"tandem alias set gguf {gguf}",
        "lms import",
    ):
        expect(serve.get_by_text(text)).to_be_visible()
    with page.expect_download() as got:
        page.get_by_role("link", name="Download,").click()
    assert registry.sha256(got.value.path()) == card.sha256
    with page.expect_download() as got:
        page.get_by_role("region", name="Modelfile").get_by_role("link", name="Download").click()
    text = got.value.path().read_text()
    assert f"FROM ./{gguf}" in text and "namespace functions" in text
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: llama.cpp").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith(f"llama-server -m {gguf}")


def test_an_export_that_an_alias_points_at_is_not_deleted(
    trained: Site, gguf: str, troubles: Troubles, page: Page
) -> None:
    troubles.forgive("409")
    page.goto(f"/exports/{gguf}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("are freed")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The alias 'gguf' points at")).to_be_visible()
    assert registry.export_card(trained.store, gguf)


def test_an_export_that_is_not_there_says_what_is(trained: Site, troubles: Troubles, page: Page) -> None:
    troubles.forgive("404")
    page.goto("/exports/none.gguf")
    expect(page.get_by_text("There is no export 'none.gguf'. There are: ")).to_be_visible()


@pytest.mark.parametrize("path", ["/exports", "/exports/{file}"])
def test_the_pages_are_accessible_in_light_and_dark_and_fit_a_phone(
    trained: Site, gguf: str, visitor, path: str
) -> None:
    for options in ({"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}):
        page = visitor(**options).new_page()
        page.goto(path.format(file=gguf))
        accessible(page)
        fits(page)
