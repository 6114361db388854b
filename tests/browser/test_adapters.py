"""Adapters in a browser: their list, their lineage and card, their aliases, and all their pages on a phone."""

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from shared import registry
from tests.browser.comparison import answered, ask, first
from tests.browser.conftest import Site, Troubles, accessible, fits


@pytest.fixture(scope="module")
def second(trained: Site) -> str:
    """A second version of the demo's adapter: the same weights, so only its name and card are its own."""
    first = registry.adapter_card(trained.store, registry.aliases(trained.store)["production"])
    with trained.store.staging(trained.store.adapters()) as staged:
        shutil.copytree(trained.store.adapter(first.reference), staged, dirs_exist_ok=True)
        (staged / "card.json").unlink()
        card = {**first.model_dump(mode="json", exclude={"version", "created"}), "loss_last": 0.5}
        return registry.publish_adapter(trained.store, staged, card).reference


@pytest.fixture
def aliases(trained: Site) -> Iterator[dict[str, str]]:
    """The aliases as the demo left them, which the test may move."""
    before = registry.aliases(trained.store)
    yield before
    for alias in registry.aliases(trained.store).keys() - before.keys():
        registry.remove_alias(trained.store, alias)
    for alias, target in before.items():
        registry.point_alias(trained.store, alias, target)


# ---- the list


def test_the_list_shows_the_newest_version_and_finds_the_others(trained: Site, second: str, page: Page) -> None:
    page.goto("/adapters")
    rows = page.locator("#list tbody tr").filter(has_text="workshop@")  # others may have been made by other tests
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text([second])
    rows.get_by_role("link", name="v1", exact=True).click()
    expect(page).to_have_url(re.compile("/adapters/.*@v1$"))
    page.goto("/adapters")
    page.get_by_label("Versions").select_option("All versions")
    expect(rows).to_have_count(2)
    expect(page).to_have_url(re.compile("versions=all"))
    page.get_by_role("searchbox").fill("production")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text([first(trained)])
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.locator("#list")).to_contain_text("No adapter matches")


def test_the_loss_sorts_both_ways(trained: Site, second: str, page: Page) -> None:
    page.goto("/adapters?versions=all")
    page.get_by_role("link", name="Loss").click()
    expect(page.locator("tbody tr").first).to_contain_text(second)
    page.get_by_role("link", name="Loss").click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Loss")
    expect(page.locator("#list tbody tr").first).to_contain_text(first(trained))


# ---- one adapter


def test_the_lineage_goes_from_the_data_to_what_answers_and_each_part_opens(trained: Site, page: Page) -> None:
    card = registry.adapter_card(trained.store, first(trained))
    export = registry.exports(trained.store)[0]
    page.goto(f"/adapters/{card.name}@{card.version}")
    lineage = page.get_by_role("group", name="Lineage")
    for part, figure in (
        (card.dataset, "162 rows"),
        (card.recipe, f"{card.steps} steps"),
        (card.reference, f"{card.loss_last:.3f}"),
        (export.file, "agrees"),
        ("production", "since"),
        ("gguf", "since"),
        ("GGUF server", "serves it now"),
    ):
        expect(lineage.get_by_role("link").filter(has_text=part).filter(has_text=figure).first).to_be_visible()
    for link in lineage.get_by_role("link").all():
        href = link.get_attribute("href")
        assert page.request.get(href.partition("#")[0]).status == 200, href


def test_an_alias_or_a_bare_name_leads_to_the_adapter(trained: Site, second: str, page: Page) -> None:
    page.goto("/adapters/production")
    expect(page.get_by_role("heading", level=1)).to_have_text(first(trained))
    page.goto(f"/adapters/{second.partition('@')[0]}/compare")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Compare {second}")


def test_an_adapter_that_is_not_there_says_what_is(trained: Site, troubles: Troubles, page: Page) -> None:
    troubles.forgive("404")
    page.goto("/adapters/none@v1")
    expect(page.get_by_role("heading", name="Not here")).to_be_visible()
    expect(page.get_by_text("There is no adapter 'none@v1'. There are: ")).to_be_visible()


def test_its_card_says_what_was_changed_and_proven_and_its_files_can_be_had(trained: Site, page: Page) -> None:
    card = registry.adapter_card(trained.store, first(trained))
    page.goto(f"/adapters/{card.reference}")
    main = page.locator("main")
    for text in (card.sha256, card.dataset_sha256, card.base_revision, "parameters in 8 tensors; norm of A"):
        expect(main.get_by_text(text).first).to_be_visible()
    expect(main.locator("svg.spark").first).to_be_visible()
    with page.expect_download() as got:
        page.get_by_role("link", name="adapter_model.safetensors").click()
    assert registry.sha256(got.value.path()) == card.sha256


def test_a_refused_deletion_says_why_and_one_that_is_allowed_is_done(
    trained: Site, aliases: dict[str, str], second: str, troubles: Troubles, page: Page
) -> None:
    troubles.forgive("409")
    page.goto("/adapters/production")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text(re.compile("The alias '.+' points at"))).to_be_visible()
    assert registry.adapter_card(trained.store, aliases["production"])


# ---- aliases


def test_pointing_an_alias_shows_what_changes_and_undo_brings_it_back(
    trained: Site, aliases: dict[str, str], second: str, page: Page
) -> None:
    page.goto(f"/adapters/{second}")
    page.get_by_label("Alias", exact=True).fill("production")
    page.get_by_role("button", name="See what changes").click()
    change = page.locator("#change")
    old = registry.adapter_card(trained.store, aliases["production"])
    expect(change.get_by_role("row", name="production")).to_contain_text(old.reference)
    expect(change.get_by_role("row", name="production")).to_contain_text(second)
    expect(change.get_by_role("row", name="Hash")).to_contain_text(old.sha256[:12])
    expect(change).to_contain_text("/v1 that asks for the model production")
    expect(change).to_contain_text("the next request")
    assert registry.aliases(trained.store) == aliases
    change.get_by_role("button", name=f"Point production at {second}").click()
    expect(page.get_by_role("status").filter(has_text=f"production points at {second} now")).to_be_visible()
    assert registry.aliases(trained.store)["production"] == second
    page.get_by_role("button", name=f"Undo: back to {old.reference}").click()
    page.get_by_role("dialog").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").filter(has_text=f"production points at {old.reference} now")).to_be_visible()
    assert registry.aliases(trained.store) == aliases


def test_a_new_alias_is_made_removed_and_brought_back(
    trained: Site, aliases: dict[str, str], second: str, page: Page
) -> None:
    page.goto("/adapters")
    page.get_by_label("New alias").fill("staging")
    page.get_by_role("combobox", name="at").select_option(second)
    page.get_by_role("button", name="See what changes").click()
    page.get_by_role("button", name=f"Point staging at {second}").click()
    expect(page.get_by_text(f"staging points at {second} now")).to_be_visible()
    page.goto("/adapters")
    page.get_by_role("button", name="Remove staging").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Bring back staging").click()
    expect(page.get_by_role("button", name="Remove staging")).to_be_visible()
    assert registry.aliases(trained.store)["staging"] == second


def test_a_name_that_cannot_be_an_alias_is_not_sent(trained: Site, page: Page) -> None:
    page.goto("/adapters")
    page.get_by_label("New alias").fill("No Name")
    page.get_by_role("button", name="See what changes").click()
    expect(page).to_have_url(re.compile("/adapters$"))
    assert page.get_by_label("New alias").evaluate("field => field.validity.patternMismatch")


def test_pointing_the_gguf_alias_at_an_adapter_is_warned_of(trained: Site, second: str, page: Page) -> None:
    page.goto(f"/adapters/aliases/gguf?target={second}")
    expect(page.locator("#change")).to_contain_text("The GGUF server serves GGUF files only")


# ---- for everybody


@pytest.mark.parametrize("path", ["/adapters", "/adapters/production", "/adapters/aliases/production?target={second}"])
def test_the_pages_are_accessible_in_light_and_dark_and_fit_a_phone(
    trained: Site, second: str, visitor, path: str
) -> None:
    address = path.format(second=second)
    for options in ({"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}):
        page = visitor(**options).new_page()
        page.goto(address)
        accessible(page)
        fits(page)


def test_the_comparison_is_accessible_and_fits_a_phone(trained: Site, second: str, visitor) -> None:
    for options in ({"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}):
        page = visitor(**options).new_page()
        page.route("**/v1/chat/completions", answered("We are open on Sunday.", "e" * 64))
        ask(page, second)
        page.get_by_label("Mark words that differ from").select_option("the base")
        expect(page.locator("#told")).to_contain_text("2 of 2 answered")
        accessible(page)
        fits(page)
