"""A benchmark in a browser: asked for by ticking, seen while its table fills, compared with those before it."""

import pytest
from playwright.sync_api import expect

from shared import registry, runs
from shared.schemas import Job
from tests.browser.alone import Alone, alone  # noqa: F401  # a fixture, used by its name
from tests.browser.conftest import accessible, fits
from tests.conftest import BASE
from tests.integration.api import Api

JOB = Job(models=[BASE, "chats@v1"], concurrency=[1, 4], tokens=128, prompt_tokens=128)


def measured(alone: Alone, run_id: str, model: str, concurrency: int, rate: float) -> None:  # noqa: F811
    row = {
        "model": model,
        "prompt_tokens": 128,
        "tokens": 128,
        "concurrency": concurrency,
        "answered": 8,
        "loading": 2.0,
    }
    row |= {"first_token": 0.05, "first_token_p95": 0.09, "tokens_per_second": rate / concurrency}
    runs.append_event(alone.store, run_id, "speed", **row, tokens_per_second_all=rate, engine="unsloth")


def begun(alone: Alone, run_id: str) -> None:  # noqa: F811
    runs.create(alone.store, run_id, "benchmark", JOB)
    runs.claim(alone.store, run_id, 1, "here:1")
    runs.append_event(alone.store, run_id, "status", state="running", attempt=1)
    runs.update(alone.store, run_id, state="running", attempt=1, steps=4)


def test_a_benchmark_is_asked_for_with_what_is_ticked(alone: Alone) -> None:  # noqa: F811
    registry.point_alias(alone.store, "production", Api(alone.settings).adapter())
    page = alone.page
    page.goto(f"{alone.url}/runs")
    page.get_by_role("link", name="Speed").click()
    expect(page.get_by_role("heading", name="Nothing has been measured yet")).to_be_visible()
    page.get_by_role("button", name="Measure the speed").click()
    dialog = page.get_by_role("dialog", name="Measure the speed")
    accessible(page)
    for name in (BASE, "chats@v1"):
        dialog.get_by_label(name).uncheck()
    expect(dialog.get_by_role("button", name="Start")).to_be_disabled()
    dialog.get_by_label("chats@v1").check()
    dialog.get_by_label("16", exact=True).uncheck()
    dialog.get_by_label("Tokens of each answer").fill("32")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/benchmark-*")
    expect(page.get_by_role("heading", name="Speed of chats@v1")).to_be_visible()
    job = runs.read_spec(alone.store, page.url.rpartition("/")[2]).job
    assert (job.models, job.concurrency, job.tokens, job.prompt_tokens) == (["chats@v1"], [1, 4], 32, 128)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_table_fills_and_then_speed_compares_it_with_the_one_before(
    alone: Alone,  # noqa: F811
    width: int,
    scheme: str,
) -> None:
    begun(alone, "benchmark-1")
    measured(alone, "benchmark-1", "chats@v1", 1, 100.0)
    runs.finish(alone.store, "benchmark-1", "succeeded", result="100 tokens a second at most (chats@v1)")
    begun(alone, "benchmark-2")
    page = alone.page
    page.set_viewport_size({"width": width, "height": 850})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{alone.url}/runs/benchmark-2")
    table = page.locator("table.speeds")
    expect(table.get_by_text("being measured")).to_have_count(1)
    expect(page.locator("#speed-charts")).to_be_hidden()
    measured(alone, "benchmark-2", BASE, 1, 80.0)
    expect(table.locator("tr", has_text=BASE).first).to_contain_text("80.0")
    expect(page.get_by_role("img", name="Tokens per second, all together")).to_be_visible()
    measured(alone, "benchmark-2", BASE, 4, 200.0)
    runs.append_event(
        alone.store, "benchmark-2", "speed", model="chats@v1", prompt_tokens=128, tokens=128, error="It is asleep."
    )
    expect(table).to_contain_text("Did not answer. It is asleep.")
    runs.finish(alone.store, "benchmark-2", "succeeded", result="200 tokens a second at most")
    expect(page.locator(".verdict")).to_contain_text("Done, but not all answered.")
    accessible(page)
    fits(page)
    page.get_by_role("link", name="Compare over time").click()
    page.wait_for_url("**/runs/speed?size=128-128")
    expect(table.locator("tbody tr")).to_have_count(2)
    expect(page.get_by_role("img", name="Tokens per second of each answer")).to_have_count(1)
    page.get_by_label("At a time").select_option("4")
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(table).to_contain_text("200")
    page.wait_for_url("**&at=4*")
    accessible(page)
    fits(page)
