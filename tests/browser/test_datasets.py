"""Data sets that are there, in the browser: found, looked at row by row and token by token, mixed with another, deleted."""

# ruff: noqa: F811

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shared import registry, runs
from shared.schemas import Job
from tests.browser.conftest import Site, Troubles, accessible, fits
from tests.browser.datasets_made import line, made, talk  # noqa: F401  # a fixture, used by its name

# ---- the list, and a data set of it


def test_the_list_shows_the_newest_version_and_finds_by_words(page: Page, made: Callable[..., str]) -> None:
    old, new = made("edition", line("one", "1")), made("edition", line("one", "1"), line("two", "2"))
    page.goto("/datasets?q=edition")
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.get_by_title(new)).to_be_visible()
    page.get_by_label("Every version").check()
    expect(rows).to_have_count(2)
    expect(page).to_have_url(re.compile("versions=all"))
    page.get_by_role("link", name="Rows").click()
    expect(rows.first.get_by_title(new)).to_be_visible()
    page.get_by_label("Every version").uncheck()
    page.get_by_role("link", name="1 older").click()
    page.locator("#versions").get_by_role("link", name=old.partition("@")[2]).click()
    expect(page.get_by_text("An older version")).to_be_visible()
    page.get_by_label("Data set", exact=True).get_by_role("link", name="Rows 1").click()
    page.get_by_role("link", name=new).click()
    expect(page.locator("article")).to_have_count(2)
    page.goto("/datasets")
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    expect(page.get_by_text("Nothing found")).to_be_visible()


def test_what_was_found_and_where_it_went_is_shown(page: Page, site: Site, made: Callable[..., str]) -> None:
    ref = made("learned", *(line(f"What of the bike {n} and the wheel?", "It is in the shop.") for n in range(30)))
    run = runs.create(site.store, "train-learned", "train", Job(dataset=ref))
    runs.request_cancel(site.store, run.id)
    card = registry.dataset_card(site.store, ref)
    page.goto("/datasets/learned")
    for text in (f"{card['tokens']['total']:,}", card["sha256"], "learned.jsonl", run.id, "English"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="Train on it").first).to_have_attribute(
        "href", re.compile(r"/runs/new\?dataset=learned(%40|@)")
    )
    expect(page.get_by_role("img", name=re.compile("Conversations by tokens: 30 from 0"))).to_be_visible()


def test_a_data_set_without_thinking_says_so(page: Page, made: Callable[..., str]) -> None:
    page.goto(f"/datasets/{made('direct', *(line(f'q{n}', 'a') for n in range(30)))}")
    expect(page.get_by_text("No row has thinking")).to_be_visible()


def test_both_files_are_downloaded(page: Page, made: Callable[..., str]) -> None:
    ref = made("kept", line("a", "b"), "{torn")
    page.goto(f"/datasets/{ref}")
    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as rows:
        page.get_by_role("link", name="1 row as JSONL").click()
    assert json.loads(Path(rows.value.path()).read_text()) == json.loads(line("a", "b"))
    with page.expect_download() as original:
        page.get_by_role("link", name="The file as it was uploaded").click()
    assert Path(original.value.path()).read_text() == line("a", "b") + "\n{torn\n"
    assert (rows.value.suggested_filename, original.value.suggested_filename) == (f"{ref}.jsonl", "kept.jsonl")


def test_rows_are_read_as_conversations_searched_and_linked(page: Page, made: Callable[..., str]) -> None:
    ref = made("talks", *(line(f"question {n}", f"answer {n}") for n in range(24)), talk())
    page.goto(f"/datasets/{ref}/rows")
    expect(page.locator("article")).to_have_count(10)
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("heading", name="Row 10")).to_be_visible()
    page.get_by_label("Search in the conversations").fill("I MUST look")
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator("mark")).to_have_text("I must look")
    expect(page.locator("article")).to_contain_text('"city": "Köln"')
    expect(page.get_by_text("Now I know.")).to_be_hidden()
    page.locator("summary", has_text="Thinking").last.click()
    expect(page.get_by_text("Now I know.")).to_be_visible()
    page.get_by_role("link", name="Row 24").click()
    expect(page).to_have_url(re.compile(r"/rows/24$"))
    page.get_by_role("link", name="As tokens").click()
    expect(page.get_by_label("Row", exact=True)).to_have_value("24")


def test_a_data_set_is_deleted_after_a_question_and_not_while_a_run_needs_it(
    page: Page, site: Site, made: Callable[..., str], troubles: Troubles
) -> None:
    troubles.forgive("409")
    ref = made("doomed", line("a", "b"))
    runs.create(site.store, "train-doomed", "train", Job(dataset=ref))
    page.goto(f"/datasets/{ref}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("Its 1 row and the file")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("is used by train-doomed")).to_be_visible()
    runs.request_cancel(site.store, "train-doomed")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("/datasets$"))
    assert not site.store.dataset(ref).exists()


# ---- tokens


def test_the_policy_decides_what_is_marked_as_learned(page: Page, made: Callable[..., str]) -> None:
    page.goto(f"/datasets/{made('tokens', talk(turns=2))}/tokens")
    view = page.locator("#view")

    def learned() -> str:
        return "".join(view.locator(".learned b").all_inner_texts())

    expect(view.get_by_role("heading", name=re.compile("Example"))).to_have_count(2)
    assert "I must look." in learned() and "It is 12 °C." in learned() and "Köln?" not in learned()
    page.evaluate("window.stayed = true")
    page.get_by_label("Policy").select_option("final")
    expect(view.get_by_role("heading", name=re.compile("^final"))).to_be_visible()
    assert "I must look." not in learned() and "It is 12 °C." in learned()
    page.get_by_label("Policy").select_option("last_turn")
    expect(view.get_by_role("heading", name=re.compile("^last_turn"))).to_be_visible()
    assert learned().startswith("<|channel|>analysis<|message|>Am I?")
    page.get_by_label("Policy").select_option("all three")
    expect(view.locator(".policy")).to_have_count(3)
    page.get_by_label("Effort").select_option("low")
    expect(view.locator(".saying.system").first).to_contain_text("Reasoning: low")
    page.get_by_label("max_length").fill("90")
    page.get_by_label("max_length").press("Tab")
    expect(view.get_by_text("Cut at max_length").first).to_be_visible()
    assert page.evaluate("window.stayed")
    page.reload()
    expect(view.locator(".policy")).to_have_count(3)


def test_each_token_tells_its_id_and_channel_by_pointer_and_by_keys(page: Page, made: Callable[..., str]) -> None:
    page.goto(f"/datasets/{made('tokens', talk(turns=2))}/tokens?policy=final")
    about = page.locator("#about-token")
    page.locator("[data-as]").first.hover()
    expect(about).to_contain_text("id 200007")
    expect(about).to_contain_text("learned as <|return|>")
    page.get_by_label(re.compile("Tokens of example 1")).focus()
    page.keyboard.press("Home")
    expect(about).to_contain_text("Token 0 · id 200006")
    page.keyboard.press("ArrowRight")
    expect(about).to_contain_text('"system" · system · header · not learned')
    page.keyboard.press("End")
    expect(about).to_contain_text("assistant, final · special · learned")
    tab = page.locator(".run b", has_text="⇥").first
    expect(tab).to_be_visible()
    expect(page.locator(".run b", has_text="↵").first).to_be_visible()


def test_a_row_of_a_hundred_thousand_tokens_is_cut_with_a_note(page: Page, made: Callable[..., str]) -> None:
    ref = made("endless", line("Tell all.", "all " * 100_000, thinking="So be it."))
    page.goto(f"/datasets/{ref}/tokens")
    expect(page.get_by_text("The first 3,000 of 100,0")).to_be_visible()
    expect(page.locator("[data-i]")).to_have_count(3000)
    page.get_by_role("link", name="Its end").click()
    expect(page.locator("b", has_text="<|return|>")).to_be_visible()
    page.get_by_role("link", name="Before").click()
    expect(page.locator("b", has_text="<|return|>")).to_have_count(0)
    expect(page.locator("[data-i]")).to_have_count(3000)
    page.goto(f"/datasets/{ref}/rows")
    expect(page.get_by_role("link", name="Show all of this row")).to_be_visible()
    assert len(page.content()) < 200_000


# ---- a mix


def test_two_data_sets_are_mixed_as_was_foretold(page: Page, site: Site, made: Callable[..., str]) -> None:
    first = made("thinkers", *(line(f"t{n}", "a", thinking="Hm.") for n in range(40)))
    second = made("talkers", *(line(f"d{n}", "a") for n in range(40)))
    page.goto(f"/datasets/mix?reasoning={first}&direct={second}")
    outcome = page.locator("#outcome")
    expect(outcome).to_contain_text("54 rows: 40 of thinkers, 14 of talkers")
    page.get_by_label("Share of the first").fill("0.5")
    expect(outcome).to_contain_text("80 rows: 40 of thinkers, 40 of talkers")
    page.get_by_label("Rows in all").fill("81")
    expect(outcome).to_contain_text("they make 80 rows, not 81")
    expect(page.get_by_role("button", name="Make the mix")).to_be_disabled()
    page.get_by_label("Rows in all").fill("20")
    page.get_by_label("Second").select_option(first)
    expect(outcome).to_contain_text("nothing to mix")
    page.get_by_label("Second").select_option(second)
    expect(page.get_by_label("Name")).to_have_value("thinkers-talkers")
    expect(outcome).to_contain_text("20 rows: 10 of thinkers, 10 of talkers")
    page.get_by_role("button", name="Make the mix").click()
    expect(page).to_have_url(re.compile("/datasets/thinkers-talkers@"))
    card = registry.dataset_card(site.store, "thinkers-talkers")
    assert (card["rows"]["accepted"], card["reasoning"]["rows"]) == (20, 10)
    for parent in (first, second):
        expect(page.get_by_role("link", name=parent)).to_have_attribute("href", f"/datasets/{parent}")
    page.get_by_role("link", name=second).click()
    expect(page.get_by_role("link", name=re.compile("^thinkers-talkers@"))).to_be_visible()


# ---- for everybody


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1440), ("dark", 1024)])
def test_every_page_is_accessible_and_not_wider_than_the_screen(
    visitor: Callable[..., BrowserContext], made: Callable[..., str], scheme: str, width: int
) -> None:
    ref = made("everybody", *(line(f"q{n}", "a " * 40) for n in range(12)), talk(turns=2), "{torn", "{" * 400)
    page = visitor(color_scheme=scheme, viewport={"width": width, "height": 844}).new_page()
    for path in ("", "/mix", f"/{ref}", f"/{ref}/rows", f"/{ref}/rows/12", f"/{ref}/rejected", f"/{ref}/tokens?row=12"):
        page.goto(f"/datasets{path}")
        page.evaluate("for (const part of document.querySelectorAll('main details')) part.open = true")
        fits(page)
        if width != 1024:
            accessible(page)
