"""Preferences and plain text in a browser: uploaded, looked at, chosen for a run, and the curve of a run that compares."""

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from services.cli.client import Client
from shared import runs
from tests.browser import runs_data
from tests.browser.conftest import Site, accessible, fits
from tests.browser.datasets_made import line, made  # noqa: F401  # a fixture, used by its name

PAIR = json.dumps({"prompt": "When are you open?", "chosen": "<think>Hours.</think>From nine.", "rejected": "Dunno."})


@pytest.fixture
def kinds(site: Site, made: Callable[..., str]) -> Iterator[dict[str, str]]:  # noqa: F811
    """A data set of each kind; other tests take the newest one they find, so these go again."""
    found = {
        "text": made("tale", json.dumps({"text": "Once upon a time."})),
        "preferences": made("pairs", PAIR, PAIR),
        "conversations": made("talks", line("a", "b")),
    }
    yield found
    client = Client(site.url, key=site.key)
    for reference in found.values():
        client.call("DELETE", f"/datasets/{reference}")


def test_a_plain_text_is_dropped_and_looked_at(page: Page, site: Site) -> None:
    page.goto("/datasets")
    page.set_input_files("#file", {"name": "tale.txt", "mimeType": "text/plain", "buffer": b"Once.\n\nUpon.\fThe end."})
    page.wait_for_url("**/datasets/tale@*")
    page.get_by_role("link", name="Rows 2").click()
    expect(page.locator("article").first).to_contain_text("Once.")
    page.get_by_role("link", name="As tokens").last.click()
    expect(page.locator("[data-tokens]")).to_contain_text("<|endoftext|>")
    accessible(page)
    Client(site.url, key=site.key).call("DELETE", "/datasets/tale")


def test_each_page_of_a_pair_is_accessible_and_fits(page: Page, kinds: dict[str, str]) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("", "/rows/0", "/tokens"):
        page.goto(f"/datasets/{kinds['preferences']}{path}")
        fits(page)
        accessible(page)
    expect(page.locator("h3")).to_have_text(["Chosen", "Rejected"])


def test_a_data_set_chooses_the_recipes_that_can_learn_from_it(page: Page, kinds: dict[str, str]) -> None:
    page.goto(f"/runs/new?dataset={kinds['conversations']}")
    chosen = page.locator("input[name=recipe]:checked")
    expect(chosen).to_have_value("tiny")
    for kind in ("preferences", "text"):
        page.select_option("#dataset", kinds[kind])
        expect(chosen).to_have_value(kind)
        expect(page.locator("input[name=recipe]:visible")).to_have_count(1)
        expect(page.locator("#send")).to_contain_text("Train", use_inner_text=True)
        expect(page.locator("#refusal")).to_be_hidden()
    page.select_option("#dataset", kinds["conversations"])
    expect(chosen).to_have_value("tiny")


def test_the_form_has_the_values_that_the_method_uses_and_no_others(page: Page, kinds: dict[str, str]) -> None:
    def shown() -> set[str]:
        page.locator("details:has(#v-reasoning_effort)").evaluate("fold => fold.open = true")
        names = ("supervise", "reasoning_effort", "dpo_beta", "packing", "method")
        return {name for name in names if page.locator(f"#v-{name}").is_visible()}

    page.goto(f"/runs/new?dataset={kinds['conversations']}&recipe=preferences")
    expect(page.locator("input[name=recipe]:checked")).to_have_value("tiny")
    assert shown() == {"supervise", "reasoning_effort", "packing"}
    page.select_option("#v-supervise", "final")
    expect(page.locator("#changes")).to_contain_text("Supervise: final")
    page.select_option("#dataset", kinds["preferences"])
    assert shown() == {"reasoning_effort", "dpo_beta"}
    expect(page.locator("summary", has_text="DPO beta")).to_have_text("More: DPO beta, reasoning effort")
    expect(page.locator("#changes")).to_be_empty()
    expect(page.locator("#send")).to_contain_text("step", use_inner_text=True)
    page.select_option("#dataset", kinds["text"])
    assert shown() == {"packing"}


def test_a_sweep_offers_the_recipes_that_can_learn_from_its_data_set(page: Page, kinds: dict[str, str]) -> None:
    page.goto(f"/runs/sweeps/new?dataset={kinds['conversations']}")
    expect(page.locator("#recipe")).to_have_value("tiny")
    page.select_option("#dataset", kinds["preferences"])
    expect(page.locator("#recipe option")).to_have_text(["preferences"])
    expect(page.get_by_label("Learning rate: what may be chosen")).to_have_value("2.5e-07..1.25e-05")
    expect(page.locator("#takes")).to_contain_text("A trial has 1 step")
    accessible(page)


def test_the_rewards_of_a_run_are_drawn_and_read(page: Page, site: Site) -> None:
    run_id = "train-rewarded"
    runs_data.running(site.store, run_id)
    for step in range(1, 6):
        runs.append_event(
            site.store, run_id, "metric", step=step, loss=0.7 - step / 10, reward_margin=step / 2, reward_accuracy=0.75
        )
    runs.append_event(site.store, run_id, "metric", step=5, validation_loss=0.6, validation_reward_margin=1.25)
    page.goto(f"/runs/{run_id}")
    expect(page.locator("#readout")).to_contain_text("Chosen over rejected 2.5")
    expect(page.locator("#readout")).to_contain_text("Chosen over rejected, validation 1.25")
    expect(page.locator("#small-charts small")).to_contain_text(["Chosen over rejected", "Share preferred"])
    runs.update(site.store, run_id, state="failed", reason="made for a test")
    Client(site.url, key=site.key).call("DELETE", f"/runs/{run_id}")
