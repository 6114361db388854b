"""What becomes of a conversation: branches, two models, two windows, files, rows of a data set, tokens."""

import re
import threading
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect

from shared import registry
from shared.datasets import stream
from tests.browser.conftest import Site, Troubles, accessible
from tests.browser.scripted import END, chunk, scripted
from tests.browser.talk import QUESTION, answers, ask, asked_and_answered, kept, opened
from tests.conftest import BASE


def test_an_edited_question_is_a_branch_and_the_switcher_goes_back(page: Page, trained: Site) -> None:
    opened(page)
    asked_and_answered(page)
    first = answers(page).inner_text()
    page.keyboard.press("ArrowUp")  # in the empty field
    field = page.get_by_label("The question")
    expect(field).to_have_value(QUESTION)
    field.fill("What does a new chain cost?")
    field.press("Enter")
    expect(page.locator(".user .text")).to_have_text("What does a new chain cost?")
    expect(page.locator(".assistant .facts")).to_contain_text("tokens")
    expect(page.locator(".user .branches")).to_contain_text("2 / 2")
    page.get_by_role("button", name="The one before").click()
    expect(page.locator(".user .text")).to_have_text(QUESTION)
    expect(answers(page)).to_have_text(first)
    expect(page.get_by_role("button", name="The one before")).to_be_disabled()


def test_another_model_answers_again_on_a_branch(page: Page, adapter: str, trained: Site) -> None:
    opened(page, f"/chat?model={quote(adapter)}")
    asked_and_answered(page)
    page.get_by_label("Answer again with another model").select_option(BASE)
    expect(page.locator(".assistant .facts")).to_contain_text(BASE)
    expect(page.locator(".assistant .branches")).to_contain_text("2 / 2")
    page.get_by_role("button", name="Delete").last.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".assistant .facts")).to_contain_text(adapter)
    expect(page.locator(".assistant .branches")).to_have_count(0)


def test_two_models_answer_side_by_side_each_on_its_own_line(page: Page, adapter: str, trained: Site) -> None:
    opened(page, f"/chat?model={quote(adapter)}&beside={quote(BASE)}")
    ask(page)
    for column, name in ((1, adapter), (2, BASE)):
        expect(page.locator(f".c{column} .facts", has_text="tokens")).to_contain_text(name)
    hashes = page.locator(".assistant .facts abbr").all_inner_texts()
    assert len(set(hashes)) == 2
    boxes = [page.locator(f".c{column}.assistant").bounding_box() for column in (1, 2)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] and boxes[0]["y"] == boxes[1]["y"]
    with scripted(page, chunk(content="Yes."), END) as requests:
        ask(page, "Are you sure?")
        expect(answers(page).last).to_have_text("Yes.")
        expect(page.locator(".message", has_text="Are you sure?")).to_have_count(2)
    said = {request["model"]: request["messages"][1]["content"] for request in requests}
    assert set(said) == {adapter, BASE} and said[adapter] != said[BASE]
    page.locator(".c2.user").last.get_by_role("button", name="Edit").click()
    with scripted(page, chunk(content="No."), END) as requests:
        page.get_by_label("The question").fill("Are you?")
        page.keyboard.press("Enter")
        expect(answers(page).last).to_have_text("No.")
        expect(page.locator(".user", has_text=re.compile(r"^.*Are you\?"))).to_have_count(2)
    assert {request["model"] for request in requests} == {adapter, BASE}
    page.wait_for_function("document.querySelector('#said').hidden")
    opened(page, page.url)
    expect(page.locator(".c2.assistant")).to_have_count(2)


def test_a_conversation_is_exported_deleted_and_brought_back(
    page: Page, tmp_path: Path, site: Site, adapter: str
) -> None:
    opened(page, f"/chat?model={quote(adapter)}&beside={quote(BASE)}")
    ask(page, "Take me along")
    for column in (1, 2):
        expect(page.locator(f".c{column} .facts", has_text="tokens")).to_be_visible()
    page.wait_for_function("document.querySelector('#said').hidden")
    page.wait_for_timeout(300)  # the last save is on its way
    before = kept(site, page)
    for form in ("JSON", "Markdown"):
        page.get_by_role("button", name="More for this conversation").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=f"Export as {form}").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        page.get_by_role("button", name="More for this conversation").click()
        page.get_by_role("menuitem", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page).to_have_url(re.compile("/chat$"))
        assert not site.store.chat(before["id"]).exists()
        page.locator("#import").set_input_files(file)
        page.wait_for_url(f"**/chat/{before['id']}")
        expect(page.locator(".assistant")).to_have_count(2)
        after = kept(site, page)
        ids = ("token_ids", "prompt_token_ids")
        drop = () if form == "JSON" else ids
        assert after == {
            **before,
            "messages": [{k: v for k, v in m.items() if k not in drop} for m in before["messages"]],
        }


def test_what_cannot_be_imported_is_refused_with_a_sentence(
    page: Page, tmp_path: Path, site: Site, troubles: Troubles
) -> None:
    troubles.forgive("422")
    opened(page)
    (tmp_path / "notes.md").write_text("# Notes")
    page.locator("#import").set_input_files(tmp_path / "notes.md")
    expect(page.locator("#said")).to_contain_text("not Markdown that Tandem exported")


def test_a_corrected_answer_is_kept_as_a_row_of_a_data_set(
    page: Page, adapter: str, site: Site, troubles: Troubles
) -> None:
    troubles.forgive("status of 40[04]")
    opened(page, f"/chat?model={quote(adapter)}")
    asked_and_answered(page)
    original = answers(page).inner_text()
    page.locator(".assistant").get_by_role("button", name="Correct").click()
    page.get_by_label("The answer, as Markdown").fill("From nine to **five**.")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".assistant .facts")).to_contain_text("Corrected")
    expect(page.locator(".assistant .branches")).to_contain_text("2 / 2")
    page.locator(".assistant").get_by_role("button", name="Keep").click()
    dialog = page.get_by_role("dialog", name="Keep as a row of a data set")
    expect(dialog).to_contain_text("From nine to **five**.")
    dialog.get_by_label("Keep the thinking, too").uncheck()
    dialog.get_by_label("Data set").fill("Not a name!")
    dialog.get_by_role("button", name="Keep", exact=True).click()
    expect(dialog).to_contain_text("cannot be a data set")
    dialog.get_by_label("Data set").fill("kept-in-a-test")
    dialog.get_by_role("button", name="Keep", exact=True).click()
    expect(dialog.get_by_role("link", name="kept-in-a-test@")).to_be_visible()
    accessible(page)
    card = registry.dataset_card(site.store, "kept-in-a-test")
    row = list(stream(site.store.dataset(card["reference"])))[-1]
    assert row["messages"] == [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "From nine to **five**."},
    ]
    dialog.get_by_role("button", name="Keep", exact=True).click()
    expect(dialog).to_contain_text("has this very row already")
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="The one before").click()
    expect(answers(page)).to_have_text(original)


def test_the_tokens_are_shown_with_their_ids_and_channels(page: Page, adapter: str, site: Site) -> None:
    opened(page, f"/chat?model={quote(adapter)}")
    asked_and_answered(page)
    page.wait_for_function("document.querySelector('#said').hidden")
    opened(page, page.url)
    page.get_by_role("button", name="Tokens").click()
    answer = page.locator(".tokens > section")
    expect(answer.last).to_contain_text("<|return|>")
    expect(answer.last).to_contain_text("200002")
    expect(answer.last.locator("p")).to_have_text("assistant, final")
    page.locator(".tokens summary").click()
    expect(page.locator(".tokens details")).to_contain_text("200006")
    accessible(page)
    page.get_by_role("button", name="Tokens").click()
    expect(page.locator(".tokens")).to_have_count(0)


def test_two_windows_on_one_conversation_lose_nothing(page: Page, site: Site, trained: Site) -> None:
    opened(page)
    asked_and_answered(page)
    other = opened(page.context.new_page(), page.url)
    gate, second = threading.Event(), threading.Event()
    with (
        scripted(page, chunk(content="In the first."), gate, END),
        scripted(other, chunk(content="In the second."), second, END),
    ):
        ask(page, "First?")
        ask(other, "Second?")
        expect(answers(page).filter(has_text="In the first.")).to_be_visible()
        expect(answers(other).filter(has_text="In the second.")).to_be_visible()
        gate.set()
        second.set()
        for each in (page, other):
            expect(each.get_by_role("button", name="Send")).to_be_visible()
    other.close()
    opened(page, page.url)
    said = {message["content"] for message in kept(site, page)["messages"]}
    assert {"First?", "In the first.", "Second?", "In the second."} <= said


def test_what_another_window_adds_appears(page: Page, trained: Site) -> None:
    opened(page)
    asked_and_answered(page)
    other = opened(page.context.new_page(), page.url)
    asked_and_answered(other, "And on Sundays?", 1)
    expect(page.locator(".user .text").last).to_have_text("And on Sundays?")
    expect(answers(page).last).to_have_text(answers(other).last.inner_text())
