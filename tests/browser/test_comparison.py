"""The comparison of an adapter with its base, in a browser: which weights answered, in which words, and what failed."""

import json

from playwright.sync_api import Page, expect

from shared import registry
from tests.browser.comparison import answered, ask, first
from tests.browser.conftest import Site, Troubles


def test_base_and_adapter_answer_differently_by_different_weights(trained: Site, page: Page) -> None:
    card = registry.adapter_card(trained.store, first(trained))
    ask(page, card.reference)
    expect(page.locator("#told")).to_have_text("2 of 2 answered.")
    base, adapter = page.locator("article.cell").all()
    assert base.locator(".said").inner_text() != adapter.locator(".said").inner_text()
    assert adapter.locator("code").get_attribute("title") == card.sha256
    assert base.locator("code").get_attribute("title") != card.sha256
    expect(adapter).to_contain_text("tokens/s")
    expect(page.locator(".wrong, .tag").filter(has_text="same as base")).to_have_count(0)
    page.get_by_label("Mark words that differ from").select_option("the base")
    expect(adapter.locator("ins").first).to_be_visible()
    page.reload()
    expect(page.get_by_label("Question 1", exact=True)).to_have_value("When are you open?")


def test_a_held_out_question_comes_with_what_the_data_answers(trained: Site, page: Page) -> None:
    page.goto(f"/adapters/{first(trained)}/compare")
    offered = page.locator("#offered button:disabled").first
    question, expected = offered.get_attribute("data-text"), offered.get_attribute("data-expected")
    assert question and expected
    page.get_by_label("Base").uncheck()
    page.route("**/v1/chat/completions", answered(expected, "e" * 64))
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("section.asked").filter(has_text=question).locator(".expected")).to_contain_text(expected)
    expect(page.locator("section.asked").filter(has_text=question).get_by_text("as in the data")).to_be_visible()
    expect(page.locator("#told")).to_contain_text("3 of 3 answered.")
    expect(page.get_by_text("Wrong: not the weights")).to_have_count(3)  # these are not the card's


def test_a_column_that_the_base_answered_is_called_wrong(trained: Site, page: Page) -> None:
    page.route("**/v1/chat/completions", answered("the same", "f" * 64))
    ask(page, first(trained))
    adapter = page.locator("article.cell").nth(1)
    expect(adapter).to_contain_text("Wrong: the base answered")
    expect(adapter).to_contain_text("same as base")
    expect(page.locator("#told")).to_contain_text("A column is wrong")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as Markdown").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "## When are you open?" in copied and "> the same" in copied and "Wrong" in copied and "f" * 64 in copied


def test_an_answer_that_failed_can_be_asked_again(trained: Site, troubles: Troubles, page: Page) -> None:
    troubles.forgive("503")
    body = json.dumps({"error": {"message": "The server is away.", "code": "backend_unavailable"}})
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=503, body=body))
    ask(page, first(trained))
    expect(page.get_by_text("The server is away.").first).to_be_visible()
    expect(page.locator("#told")).to_contain_text("2 failed")
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator("#told")).to_contain_text("1 of 2 answered, 1 failed")


def test_answers_are_stopped(trained: Site, page: Page) -> None:
    page.route("**/v1/chat/completions", lambda route: None)  # never answered
    ask(page, first(trained))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.cell").first).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")


def test_a_comparison_is_made_by_keyboard_alone(trained: Site, page: Page) -> None:
    page.route("**/v1/chat/completions", answered("Yes.", "e" * 64))
    page.goto(f"/adapters/{first(trained)}/compare#q=x")
    page.get_by_role("button", name="Add a question").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("Is this asked?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("section.asked h3").nth(1)).to_have_text("Is this asked?")
    expect(page.locator("#told")).to_contain_text("4 of 4 answered")
