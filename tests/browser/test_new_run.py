"""The form of a new run, in a browser: filled by keyboard or from another run, refused next to a field, sent."""

# ruff: noqa: F811

import json

import pytest
from playwright.sync_api import Page, expect

from services.cli.client import Client
from shared import runs
from tests.browser.conftest import Site, Troubles, accessible
from tests.browser.watch import SLOW, dataset, shows_steps, submit  # noqa: F401  # a fixture, used by its name


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the field has the focus."""
    for _ in range(90):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} cannot be reached with Tab")


def test_a_run_is_started_by_keyboard_alone_and_watched_to_its_end(page: Page, site: Site, dataset: str) -> None:
    page.goto("/runs")
    tab_to(page, "a[href='/runs/new']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/new")
    expect(page.locator("input[name=recipe]:checked")).to_have_value("tiny")
    tab_to(page, "#name")
    page.keyboard.press("Control+a")
    page.keyboard.type("by-keyboard")
    tab_to(page, "#v-steps")
    page.keyboard.press("Control+a")
    page.keyboard.type("4")
    expect(page.locator("#changes")).to_contain_text("Steps: 4")
    expect(page.locator("#send")).to_contain_text("Train by-keyboard@v1 · 4 steps", use_inner_text=True)
    tab_to(page, "#send")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/train-*")
    expect(page.locator(".verdict")).to_contain_text("Done. Loss", timeout=SLOW)
    shows_steps(page, 4)
    expect(page.get_by_role("link", name="Chat with it")).to_have_attribute("href", "/chat?model=by-keyboard%40v1")
    expect(page.locator("section[aria-labelledby=proof]")).to_contain_text("held-out examples it chooses another token")
    assert runs.read_spec(site.store, page.url.rpartition("/")[2]).job.overrides == {"steps": 4}


def test_a_value_out_of_bounds_is_refused_next_to_its_field_and_never_sent(
    page: Page, dataset: str, troubles: Troubles
) -> None:
    troubles.forgive("status of 400")  # the browser's own line about an estimate that was refused
    sent: list[str] = []
    page.on("request", lambda r: r.method == "POST" and r.url.endswith("/api/runs") and sent.append(r.url))
    page.goto("/runs/new")
    page.get_by_label("LoRA rank").fill("999")
    expect(page.locator("#bad-lora_rank")).to_have_text("It cannot be above 256.")
    page.locator("#send").press("Enter")
    expect(page.get_by_label("LoRA rank")).to_be_focused()
    page.get_by_label("LoRA rank").fill("16")
    page.locator("details:has(#v-lora_dropout) > summary").click()
    page.locator("#v-lora_dropout").fill("0.1")
    expect(page.locator("#bad-lora_dropout")).to_contain_text("must be 0 while train_experts is on")
    page.locator("#send").press("Enter")
    expect(page.locator("#v-lora_dropout")).to_be_focused()
    page.get_by_role("button", name="Reset to 0").click()
    expect(page.locator("#send")).to_contain_text("64 steps")
    page.locator("#name").fill("Not A Name")
    expect(page.locator("#bad-name")).to_contain_text("small letters")
    assert not sent


def test_what_does_not_fit_into_memory_is_made_to_fit_in_one_click(page: Page, dataset: str) -> None:
    page.goto("/runs/new")
    page.locator("details:has(#v-packing) > summary").click()
    page.locator("#v-packing").check()
    page.get_by_label("Longest example").fill("65536")
    page.get_by_label("Batch size").fill("64")
    expect(page.locator("#estimate")).to_contain_text("more than there is")
    tab_to(page, "#nearest")
    accessible(page)
    page.keyboard.press("Enter")
    expect(page.locator("#send")).to_be_focused()
    expect(page.locator("#v-batch_size")).not_to_have_value("64")
    expect(page.locator("#estimate")).to_contain_text("What it will take")
    expect(page.locator("#nearest")).to_have_count(0)
    expect(page.locator("#estimate")).not_to_contain_text("more than there is")


def test_a_run_that_the_queue_did_not_take_is_kept_and_linked(page: Page, troubles: Troubles, dataset: str) -> None:
    troubles.forgive("status of 503")
    error = {"message": "The queue does not answer. The job is kept.", "type": "queue_unreachable"}
    answer = json.dumps({"error": {**error, "details": ["train-kept"]}})
    page.route("**/api/runs", lambda route: route.fulfill(status=503, body=answer, content_type="application/json"))
    page.goto("/runs/new")
    page.locator("#send").click()
    expect(page.get_by_role("link", name="Look at the run")).to_have_attribute("href", "/runs/train-kept")


def test_a_clone_is_filled_with_what_its_parent_was_asked_for(page: Page, site: Site, dataset: str) -> None:
    job = runs.read_spec(site.store, submit(site, dataset, steps=33, learning_rate=0.004))
    Client(site.url, key=site.key).post(f"/runs/{job.id}/cancel")
    page.goto(f"/runs/new?from={job.id}")
    expect(page.locator("#v-steps")).to_have_value("33")
    expect(page.locator("#changes")).to_contain_text("Learning rate: 0.004")
    page.locator("details:has(#command) > summary").click()
    expect(page.locator("#command")).to_have_text(
        f"tandem train {dataset} --recipe tiny --name asked --set steps=33 --set learning_rate=0.004"
    )
