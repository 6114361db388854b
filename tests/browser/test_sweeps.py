"""The pages of sweeps in a browser: one is asked for, its trials are compared while they come, and it ends with its best."""

import json

import pytest
from playwright.sync_api import expect

from shared import runs, sweeps
from tests.browser.alone import Alone, alone  # noqa: F401  # a fixture, used by its name
from tests.browser.conftest import Troubles, accessible, fits
from tests.integration.api import Api
from tests.unit.sweep_bench import Bench

ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}+1?"}, {"role": "assistant", "content": str(n + 1)}]})
    + "\n"
    for n in range(40)
).encode()


def test_a_sweep_is_asked_for_with_what_is_ticked(alone: Alone, troubles: Troubles) -> None:  # noqa: F811
    troubles.forgive("status of 400")
    Api(alone.settings).upload(ROWS)
    page = alone.page
    page.goto(f"{alone.url}/runs")
    page.get_by_role("link", name="Sweeps").click()
    page.get_by_role("link", name="Start a sweep").click()
    expect(page.get_by_label("LoRA alpha: what may be chosen")).to_be_disabled()
    expect(page.locator("#takes")).to_contain_text("steps")
    page.get_by_label("Warmup", exact=True).check()
    page.get_by_label("Recipe").select_option("execution-plan")
    expect(page.get_by_label("Learning rate: what may be chosen")).to_have_value("1e-05..0.0005")
    page.get_by_label("Learning rate: what may be chosen").fill("1..0")
    page.get_by_role("button", name="Start the sweep").click()
    expect(page.locator("form output")).to_contain_text("a range goes from low to high")
    page.get_by_label("Learning rate: what may be chosen").fill("1e-5..1e-4")
    page.get_by_label("LoRA rank", exact=True).uncheck()
    page.get_by_label("Trials").fill("3")
    page.get_by_label("Steps of each trial").fill("7")
    page.keyboard.press("Tab")
    expect(page.locator("#takes")).to_contain_text("A trial has 7 steps")
    page.get_by_role("button", name="Start the sweep").click()
    page.wait_for_url("**/runs/sweeps/sweep-*")
    expect(page.get_by_role("status").first).to_contain_text("Waiting")
    spec = sweeps.read_spec(alone.store, page.url.rpartition("/")[2])
    assert spec.trials == 3 and spec.recipe.steps == 7 and list(spec.search) == ["learning_rate"]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_trials_are_compared_while_they_come(
    alone: Alone,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    scheme: str,
) -> None:
    bench = Bench(alone.store, monkeypatch, trials=2)
    page = alone.page
    page.set_viewport_size({"width": width, "height": 850})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{alone.url}/runs/sweeps/sweep-1")
    bench.advance()
    expect(page.locator(".verdict")).to_contain_text("Trial 1 of 2.")
    expect(page.get_by_role("link", name="Trial 1")).to_be_visible()
    status = bench.to_its_end()
    expect(page.locator(".verdict")).to_contain_text(f"Done. Trial {status.best} is the best")
    expect(page.locator(".scatters svg")).to_have_count(2)
    expect(page.locator("tr.best")).to_contain_text("The best.")
    expect(page.get_by_role("link", name="Train with the best values")).to_have_attribute(
        "href", f"/runs/new?from={status.trials[status.best - 1].run}"
    )
    accessible(page)
    fits(page)
    page.get_by_role("link", name="Trial 2").click()
    page.wait_for_url(f"**/runs/{status.trials[1].run}")
    page.locator("#asked ~ *, section[aria-labelledby=asked]").get_by_role("link", name="sweep-1").click()
    page.wait_for_url("**/runs/sweeps/sweep-1")


def test_a_sweep_is_ended_after_a_question(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    bench = Bench(alone.store, monkeypatch)
    bench.advance()
    [run] = bench.waiting()
    bench.validated(run)
    page = alone.page
    page.goto(f"{alone.url}/runs/sweeps/sweep-1")
    page.get_by_role("button", name="End the sweep").click()
    page.get_by_role("dialog").get_by_role("button", name="End the sweep").click()
    expect(page.locator(".verdict")).to_contain_text("Stopping")
    bench.advance()
    assert runs.cancel_requested(alone.store, run.id)
    runs.finish(alone.store, run.id, "cancelled", "Its sweep was cancelled.")
    bench.advance()
    expect(page.locator(".verdict")).to_contain_text("Cancelled. After 1 of 3 trials.")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/runs/sweeps")
    expect(page.get_by_role("heading", name="No sweep yet")).to_be_visible()
