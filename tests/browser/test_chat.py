"""The chat as a person asks in it: answers stream, stop, break off, go wrong, and are there again."""

import json
import re
import threading
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect

from shared import registry
from tests.browser.conftest import Site, Troubles
from tests.browser.scripted import CUT, END, chunk, scripted
from tests.browser.talk import QUESTION, answers, ask, asked_and_answered, opened


def test_the_first_answer_streams_and_is_there_after_a_reload(page: Page, adapter: str, trained: Site) -> None:
    opened(page, f"/chat?model={quote(adapter)}")
    asked_and_answered(page)
    expect(page).to_have_url(re.compile(r"/chat/\d{8}-"))
    text = answers(page).inner_text()
    digest = registry.adapter_card(trained.store, adapter).sha256
    facts = page.locator(".assistant .facts")
    expect(facts).to_contain_text(adapter)
    expect(facts).to_contain_text(digest[:8])
    assert digest in facts.locator("abbr").get_attribute("title")
    expect(facts).to_contain_text(re.compile(r"\d+ \+ \d+ tokens"))
    page.wait_for_function("!document.querySelector('#said:not([hidden])')")
    opened(page, page.url)
    expect(answers(page)).to_have_text(text)
    expect(page.get_by_role("heading", level=1)).to_have_text(QUESTION)
    expect(page.locator("#chats a[aria-current]")).to_have_text(QUESTION)


def test_an_empty_chat_says_what_can_be_asked_of_whom(page: Page, adapter: str) -> None:
    opened(page)
    card = page.locator(".hello .card", has_text=adapter)
    question = card.get_by_role("button").first
    words = question.inner_text()
    question.click()
    expect(page.get_by_label("Message", exact=True)).to_have_value(words)
    expect(page.get_by_role("combobox", name="Model", exact=True)).to_have_value(adapter)


def test_a_reload_in_the_middle_keeps_what_was_shown_and_goes_on(page: Page, trained: Site) -> None:
    gate = threading.Event()
    with scripted(page, chunk(reasoning="Hours."), chunk(content="From nine"), gate, chunk(content=" to five."), END):
        ask(opened(page))
        expect(answers(page)).to_have_text("From nine")
        page.wait_for_url("**/chat/*")
        opened(page, page.url)
    expect(answers(page)).to_have_text("From nine")
    expect(page.locator(".assistant .note")).to_contain_text("broken off")
    with scripted(page, chunk(content=" to five."), END) as requests:
        page.get_by_role("button", name="Go on").click()
        expect(answers(page)).to_have_text("From nine to five.")
        expect(page.locator(".assistant .note")).to_be_hidden()
    assert requests[0]["continue_final_message"]
    assert requests[0]["messages"][-1] == {"role": "assistant", "content": "From nine", "reasoning_content": "Hours."}


def test_a_long_part_survives_a_reload_as_well(page: Page, trained: Site) -> None:
    """A browser sends no more than 64 KiB after its page has gone; the rest waits in it."""
    gate, long = threading.Event(), "word " * 20_000
    with scripted(page, chunk(content="Begun. "), gate, chunk(content=long + "reached."), threading.Event()):
        ask(opened(page))
        page.wait_for_url("**/chat/*")
        gate.set()
        expect(answers(page)).to_contain_text("reached.")
        opened(page, page.url)
    expect(answers(page)).to_contain_text("reached.")


def test_an_answer_that_was_stopped_is_gone_on_with_by_the_real_model(page: Page, adapter: str, trained: Site) -> None:
    gate = threading.Event()
    opened(page, f"/chat?model={quote(adapter)}")
    with scripted(page, chunk(reasoning="The user asks about chains."), chunk(content="We fit it while"), gate, END):
        ask(page, "What does a new chain cost?")
        expect(answers(page)).to_have_text("We fit it while")
        page.keyboard.press("Escape")
        expect(page.locator(".assistant .note")).to_contain_text("Stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".assistant .facts")).to_contain_text("tokens")
    expect(answers(page)).to_have_text(re.compile("We fit it while .+"))


def test_a_lost_connection_keeps_the_part_and_offers_to_go_on(page: Page, troubles: Troubles, trained: Site) -> None:
    troubles.forgive("ERR_|Failed to load")
    opened(page)
    gate = threading.Event()
    with scripted(page, chunk(content="Half of "), gate, CUT):
        ask(page)
        expect(answers(page)).to_have_text("Half of")
        gate.set()
        expect(page.locator(".assistant .note")).to_contain_text("connection was lost")
    expect(answers(page)).to_have_text("Half of")
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".assistant .note")).to_contain_text("no connection")
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".assistant .facts")).to_contain_text("tokens")
    expect(page.locator(".user .text")).to_have_text(QUESTION)


def test_what_goes_wrong_is_said_with_the_way_out(page: Page, troubles: Troubles, trained: Site) -> None:
    troubles.forgive("Failed to load resource")
    ask_for = "The GGUF server serves a.gguf, not b.gguf. Point the alias at it."
    too_long = "The prompt has 9 tokens and this server takes 8. Shorten the conversation."
    opened(page)
    for number, (status, message, says) in enumerate(
        [
            (503, ask_for, "Point the alias"),
            (429, "no", "Wait some seconds"),
            (404, "There is no model", "Choose another model"),
            (500, "", "answered 500"),
            (400, too_long, "Begin a new chat"),
        ]
    ):
        with scripted(page, json.dumps({"error": {"message": message}}), status=status):
            ask(page) if number == 0 else page.get_by_role("button", name="Try again").click()
            expect(page.locator(".assistant .note")).to_contain_text(says)
    expect(page.locator(".assistant").get_by_role("button", name="New chat")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".assistant .facts")).to_contain_text("tokens")
    expect(page.locator(".message")).to_have_count(2)


def test_without_a_model_the_page_says_so_and_finds_it_by_itself(page: Page, troubles: Troubles, trained: Site) -> None:
    troubles.forgive("Failed to load resource")
    page.route("**/v1/models", lambda route: route.abort())
    opened(page)
    expect(page.locator("#no-model")).to_contain_text("No model is served")
    expect(page.locator("#no-model").get_by_role("link")).to_have_attribute("href", "/system")
    ask(page)
    expect(page.get_by_label("Message", exact=True)).to_have_value(QUESTION)
    page.unroute("**/v1/models")
    expect(page.locator("#no-model")).to_be_hidden()
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".assistant .facts")).to_contain_text("tokens")


def test_a_malformed_stream_shows_what_can_be_read(page: Page, trained: Site) -> None:
    odd = ": comment\r\n\r\n", "data: {broken\n\n", "data: 3\n\nevent: x\n", 'data: {"choices": []}\n\n'
    opened(page)
    with scripted(page, *odd, chunk(content="Re"), "data: null\n\n", chunk(content="ad ü"), "data: [DONE]\n\n"):
        ask(page)
        expect(answers(page)).to_have_text("Read ü")
        expect(page.locator(".assistant .note")).to_contain_text("broke off before its end")


def test_an_answer_goes_on_while_another_conversation_is_read(page: Page, trained: Site) -> None:
    gate = threading.Event()
    opened(page)
    with scripted(page, chunk(content="Slowly"), gate, chunk(content=" done."), END):
        ask(page, "Something slow")
        page.wait_for_url("**/chat/*")
        page.keyboard.press("Control+Shift+O")
        expect(page).to_have_url(re.compile("/chat$"))
        expect(page.locator(".message")).to_have_count(0)
        gate.set()
        page.locator("#chats").get_by_role("link", name="Something slow").first.click()
        expect(answers(page)).to_have_text("Slowly done.")


def test_a_draft_and_the_settings_survive_a_reload(page: Page, trained: Site) -> None:
    opened(page)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Most tokens").fill("5")
    page.get_by_label("System prompt of this conversation").fill("Be brief.")
    page.get_by_role("button", name="Done").click()
    page.get_by_label("Effort").select_option("high")
    page.get_by_label("Message", exact=True).fill("Half a question")
    opened(page)
    expect(page.get_by_label("Message", exact=True)).to_have_value("Half a question")
    expect(page.get_by_label("Effort")).to_have_value("high")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".assistant .note")).to_contain_text("most tokens allowed")
    expect(page.locator(".assistant .facts")).to_contain_text("+ 5 tokens")
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_everything_works_by_keyboard_alone(page: Page, trained: Site, tmp_path: Path) -> None:
    opened(page)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("One line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("and another")
    page.keyboard.press("Enter")
    expect(page.locator(".user .text")).to_have_text("One line\nand another", use_inner_text=True)
    expect(page.locator(".assistant .facts")).to_contain_text("tokens")
    page.locator(".assistant").get_by_role("button", name="Copy").focus()
    expect(page.locator(".assistant").get_by_role("button", name="Copy")).to_be_in_viewport()
    for _ in range(12):  # on to the field
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "text":
            break
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.get_by_role("button", name="More for this conversation").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # the menu's first: rename
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("By keyboard")
    page.keyboard.press("/")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.keyboard.type("by KEYBOARD")
    expect(page.locator("#chats li").first).to_contain_text("By keyboard")
    expect(page.locator("#chats li").filter(has_not_text="By keyboard")).to_have_count(0)


def test_a_conversation_that_is_not_there_is_said(page: Page, troubles: Troubles, site: Site) -> None:
    troubles.forgive("404")
    page.goto("/chat/20200101-000000-000000")
    expect(page.get_by_role("main")).to_contain_text("no such conversation")
