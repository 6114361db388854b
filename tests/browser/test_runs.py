"""Runs in a browser: watched as they happen, cancelled and resumed, found, compared; and what breaks in between."""

# ruff: noqa: F811

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shared import runs
from tests.browser import runs_data
from tests.browser.conftest import Site, Troubles, accessible, fits
from tests.browser.watch import SLOW, dataset, shows_steps, submit, table  # noqa: F401  # a fixture, used by its name

LOST = r"Failed to load resource|htmx:|ERR_|Status Error Code"


@pytest.fixture
def streamed(site: Site) -> Iterator[str]:
    """The id of a run that runs for as long as the test says so, with ten steps done."""
    run_id = f"train-streamed-{time.time_ns()}"
    runs_data.running(site.store, run_id)
    for number in range(1, 11):
        runs_data.step(site.store, run_id, number)
    yield run_id
    shutil.rmtree(site.store.run(run_id))


def test_a_run_is_cancelled_resumed_and_stopped_early(page: Page, site: Site, dataset: str) -> None:
    run_id = submit(site, dataset, steps=500, evaluate_every=500, save_every=500)
    page.goto(f"/runs/{run_id}")
    expect(page.locator("#readout")).to_contain_text("Loss", timeout=SLOW)
    page.get_by_role("button", name="Cancel the run").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".verdict")).to_contain_text("Cancelled.", timeout=SLOW)
    expect(page.locator(".verdict")).to_contain_text("Resume goes on from step")
    before = runs.read_status(site.store, run_id).step
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#stop")).to_be_visible(timeout=SLOW)
    expect(page.locator("section[aria-labelledby=checkpoints]")).to_contain_text("resumed from here", timeout=SLOW)
    expect(page.locator("#readout")).not_to_contain_text(f"Step {before} ", timeout=SLOW)
    page.locator("#stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop early").click()
    expect(page.locator(".verdict")).to_contain_text("Stopped early.", timeout=SLOW)
    expect(page.get_by_role("link", name="Chat with it")).to_be_visible()
    shows_steps(page, runs.read_status(site.store, run_id).step)


def test_a_reload_in_the_middle_of_the_stream_shows_each_step_once(page: Page, site: Site, streamed: str) -> None:
    page.goto(f"/runs/{streamed}?smooth=0&log=1")
    shows_steps(page, 10)
    for number in range(11, 16):
        runs_data.step(site.store, streamed, number)
    page.reload()
    for number in range(16, 21):
        runs_data.step(site.store, streamed, number)
    shows_steps(page, 20)
    expect(page.locator("#log-scale")).to_be_checked()
    expect(page.locator("#smooth")).to_have_value("0")


def test_a_lost_network_is_said_and_what_was_missed_is_made_up(
    visitor: Callable[..., BrowserContext], site: Site, streamed: str, troubles: Troubles
) -> None:
    troubles.forgive(LOST)
    context = visitor()
    page = context.new_page()
    page.goto(f"/runs/{streamed}")
    shows_steps(page, 10)
    context.set_offline(True)
    expect(page.locator("#stale")).to_be_visible()
    for number in range(11, 31):
        runs_data.step(site.store, streamed, number)
    context.set_offline(False)
    shows_steps(page, 30)
    expect(page.locator("#stale")).to_be_hidden()


def test_without_a_stream_the_events_are_asked_for(page: Page, site: Site, streamed: str, troubles: Troubles) -> None:
    troubles.forgive("status of 503")
    body = json.dumps({"error": {"message": "40 streams are open already.", "type": "refused"}})
    page.route(
        "**/events/stream**", lambda route: route.fulfill(status=503, body=body, content_type="application/json")
    )
    page.goto(f"/runs/{streamed}")
    shows_steps(page, 10)
    runs_data.step(site.store, streamed, 11)
    shows_steps(page, 11)


def test_two_tabs_show_the_same_run(visitor: Callable[..., BrowserContext], site: Site, streamed: str) -> None:
    context = visitor()
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        tab.goto(f"/runs/{streamed}")
    for number in range(11, 25):
        runs_data.step(site.store, streamed, number)
    for tab in tabs:
        shows_steps(tab, 24)
    assert table(tabs[0]) == table(tabs[1])
    runs.finish(site.store, streamed, "failed", "The loss is nan at step 24. Lower learning_rate.")
    for tab in tabs:
        expect(tab.locator(".verdict")).to_contain_text("Failed. The loss is nan at step 24.")
        expect(tab.locator(".verdict")).to_contain_text("half the learning rate")
        expect(tab.get_by_role("button", name="Resume")).to_be_visible()


def test_what_is_unfolded_stays_so_while_the_page_renews_itself(page: Page, site: Site, streamed: str) -> None:
    runs.append_event(site.store, streamed, "data", train={"tokens": 9, "supervised_tokens": 3, "examples": 1},
                      validation={"examples": 0})  # fmt: skip
    (site.store.run(streamed) / "log.txt").write_text(
        "The first example; what is between [ ] is supervised:\nasked[learned]\nFirst example: 1 of 2.\n"
    )
    page.goto(f"/runs/{streamed}")
    page.get_by_text("The first example, token by token").click()
    runs_data.step(site.store, streamed, 11)
    expect(page.locator("#top")).to_contain_text("11 of 400")
    expect(page.locator("pre.example")).to_be_visible()


def test_the_curve_is_walked_zoomed_and_laid_over_by_keyboard(page: Page, site: Site, streamed: str) -> None:
    other = f"train-other-{time.time_ns()}"
    runs_data.ended(site.store, other, 30, datetime.now(UTC))
    page.goto(f"/runs/{streamed}")
    shows_steps(page, 10)
    chart = page.get_by_role("img", name="Loss by step. streamed: loss from 2.200 at step 1 to 0.400 at step 10")
    chart.focus()
    page.keyboard.press("Home")
    expect(page.locator("#readout")).to_contain_text("Step 1 ")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#readout")).to_contain_text("Step 2 Loss 1.200")
    page.keyboard.press("+")
    page.wait_for_url("**&to=*")
    page.get_by_role("button", name="Whole curve").click()
    page.locator("#over").select_option(other)
    expect(page.locator(".reading")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("run,step,loss") and len(lines) == 1 + 10 + 30
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    page.reload()
    expect(page.locator(".reading")).to_have_count(2)
    shutil.rmtree(site.store.run(other))


def test_a_hundred_thousand_events_and_two_thousand_runs_open_at_once(page: Page, site: Site) -> None:
    moment = datetime.now(UTC) - timedelta(days=3)
    many = [f"train-many-{number:04d}" for number in range(2000)]
    for number, run_id in enumerate(many):
        runs_data.ended(site.store, run_id, 3, moment + timedelta(seconds=number))
    runs_data.ended(site.store, "train-long-0000", 100_000, moment)
    try:
        page.goto("/runs?q=train-many&sort=loss")
        expect(page.locator("#list tbody tr")).to_have_count(25)
        expect(page.locator(".pager")).to_contain_text("2,000 in all")
        began = time.monotonic()
        page.reload(wait_until="domcontentloaded")
        assert time.monotonic() - began < 3
        began = time.monotonic()
        page.goto("/runs/train-long-0000")
        expect(page.locator("#readout")).to_contain_text("Step 100,000")
        assert time.monotonic() - began < 8
        assert len(table(page)) <= 202
    finally:
        for run_id in [*many, "train-long-0000"]:
            shutil.rmtree(site.store.run(run_id))


def test_runs_are_found_filtered_and_chosen_to_compare(page: Page, site: Site) -> None:
    ids = [f"train-pair-{number}" for number in range(2)]
    for number, run_id in enumerate(ids):
        runs_data.ended(site.store, run_id, 20, datetime.now(UTC) + timedelta(seconds=number))
    try:
        page.goto("/runs")
        page.get_by_label("Search names").fill("train-pair")
        expect(page.locator("#list tbody tr")).to_have_count(2)
        for chosen, run_id in enumerate(ids, 1):
            page.locator(f"#pick-{run_id}").click()
            expect(page.get_by_text(f"{chosen} chosen")).to_be_visible()
        page.get_by_label("State").select_option("failed")
        expect(page.get_by_text("No run is like that")).to_be_visible()
        page.get_by_label("State").select_option("")
        page.get_by_role("link", name="Compare curves").click()
        expect(page.locator(".reading")).to_have_count(2)
        expect(page.locator("section[aria-labelledby=differences]")).to_contain_text("name")
    finally:
        for run_id in ids:
            shutil.rmtree(site.store.run(run_id))


def test_a_run_that_has_ended_is_deleted_after_a_question(page: Page, site: Site) -> None:
    runs_data.ended(site.store, "train-gone-0000", 5, datetime.now(UTC))
    page.goto("/runs/train-gone-0000")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("Its curve, log and checkpoints are lost.")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/runs")
    assert not runs.exists(site.store, "train-gone-0000")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit_a_phone(
    visitor: Callable[..., BrowserContext], site: Site, dataset: str, streamed: str, scheme: str
) -> None:
    page = visitor(color_scheme=scheme, viewport={"width": 390, "height": 844}).new_page()
    for path in ("/runs", "/runs/new", f"/runs/{streamed}", f"/runs/compare?run={streamed}&run=train-none"):
        page.goto(path)
        page.wait_for_load_state("load")
        if streamed in path:
            expect(page.locator("#readout")).to_contain_text("Step")
        accessible(page)
        fits(page)
