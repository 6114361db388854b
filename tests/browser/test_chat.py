"""The chat as a person uses it: asked, stopped, broken off, branched, compared, corrected, kept, taken along."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shared import registry
from shared.datasets import stream
from tests.browser.conftest import Site, Troubles, accessible, fits
from tests.browser.scripted import CUT, END, chunk, scripted
from tests.conftest import BASE

QUESTION = "When are you open?"
RENDERED = r"""# A title

A <script>document.title = "taken over"</script> and <img src=x onerror="document.title = 'taken over'">,
a [link](https://example.com/x), a [trap](javascript:alert) and ![a picture](https://example.com/x.png).

| Part | Price |
|:-----|------:|
| Chain | 35 |

```python
print("hello")
```

The sum is $\sum_{i=1}^n i = \frac{n(n+1)}{2}$, for $5 and $10, and

$$
\begin{pmatrix} a & b \\ c & d \end{pmatrix}
$$

and $\frac{broken$."""


@pytest.fixture
def adapter(trained: Site) -> str:
    return next(card.reference for card in registry.adapters(trained.store) if card.name == "workshop")


def opened(page: Page, path: str = "/chat") -> Page:
    page.goto(path)
    page.wait_for_selector("main[data-ready]")
    return page


def ask(page: Page, text: str = QUESTION) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answers(page: Page):
    return page.locator(".assistant .text")


def asked_and_answered(page: Page, text: str = QUESTION, number: int = 0) -> None:
    ask(page, text)
    expect(page.locator(".assistant .facts").nth(number)).to_contain_text("tokens")


def kept(site: Site, page: Page) -> dict:
    """The conversation of the page as it is on the disk."""
    return json.loads(site.store.chat(page.url.rpartition("/")[2]).read_text())


def bring(page: Page, tmp_path: Path, messages: list[dict] | str) -> None:
    file = tmp_path / ("chat.json" if isinstance(messages, list) else "chat.md")
    file.write_text(json.dumps(messages) if isinstance(messages, list) else messages)
    page.locator("#import").set_input_files(file)
    page.wait_for_url("**/chat/*")


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


def test_thinking_is_folded_with_its_time_and_the_choice_is_remembered(page: Page, trained: Site) -> None:
    gate, later = threading.Event(), threading.Event()
    opened(page)
    with scripted(page, chunk(reasoning="They ask."), gate, chunk(content="Yes."), later, END):
        ask(page)
        fold = page.locator(".thinking summary")
        expect(fold).to_have_text("Thinking…")
        expect(page.get_by_text("They ask.")).to_be_hidden()
        fold.click()
        expect(page.get_by_text("They ask.")).to_be_visible()
        gate.set()
        expect(fold).to_have_text(re.compile(r"Thought for \d+\.\d s"))
        later.set()
        expect(page.locator(".assistant .facts")).to_contain_text("scripted@v1")
    hold = threading.Event()
    with scripted(page, chunk(reasoning="Again."), hold, chunk(content="No."), END):
        ask(page, "And now?")
        expect(page.get_by_text("Again.")).to_be_visible()


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


def test_an_answer_is_rendered_and_nothing_in_it_is_executed(page: Page, tmp_path: Path, site: Site) -> None:
    bring(opened(page), tmp_path, [{"role": "user", "content": "Show"}, {"role": "assistant", "content": RENDERED}])
    text = answers(page)
    expect(text.get_by_role("heading", name="A title")).to_be_visible()
    expect(text.get_by_text("<script>")).to_be_visible()
    assert page.title() != "taken over"
    assert text.locator("img, script").count() == 0
    expect(text.get_by_role("link", name="link")).to_have_attribute("rel", "noopener noreferrer")
    expect(text.get_by_role("link")).to_have_count(1)
    assert text.get_by_role("cell", name="35").evaluate("e => getComputedStyle(e).textAlign") == "right"
    expect(text.locator(".codebar")).to_contain_text("python")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text.locator(".code").get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == 'print("hello")\n'
    expect(text.locator("math")).to_have_count(2)
    expect(text.locator("mtd")).to_have_count(4)
    expect(text.get_by_text("$5 and $10")).to_be_visible()
    expect(text.get_by_text(r"$\frac{broken$")).to_be_visible()
    accessible(page)


def test_a_stream_is_rendered_as_the_whole_is_and_finished_blocks_stay(page: Page, site: Site) -> None:
    """However it is cut: the same HTML at the end; and the first heading is the same element all the while."""
    opened(page)
    gate = threading.Event()
    pieces = [RENDERED[at : at + 7] for at in range(0, len(RENDERED), 7)]
    with scripted(
        page, *(chunk(content=piece) for piece in pieces[:40]), gate, *(chunk(content=p) for p in pieces[40:]), END
    ):
        ask(page, "Show")
        heading = answers(page).get_by_role("heading", name="A title")
        expect(heading).to_be_visible()
        heading.evaluate("e => { e.firstOne = true }")
        gate.set()
        expect(page.locator(".assistant .facts")).to_contain_text("scripted@v1")
    assert heading.evaluate("e => e.firstOne")
    expect(answers(page).locator("math")).to_have_count(2)
    streamed = answers(page).inner_html()
    page.wait_for_function("document.querySelector('#said').hidden")
    opened(page, page.url)
    expect(answers(page).locator("math")).to_have_count(2)
    assert answers(page).inner_html() == streamed


def test_a_very_long_answer_stays_smooth(page: Page, site: Site) -> None:
    opened(page)
    text = "".join(
        f"## Part {n}\n\nSome *words* and `code` in a paragraph that goes on for a while.\n\n" for n in range(1300)
    )
    assert len(text) > 100_000
    page.evaluate(
        "() => { window.slow = 0; let last = performance.now();"
        " const frame = (now) => { window.slow = Math.max(window.slow, now - last); last = now; requestAnimationFrame(frame) };"
        " requestAnimationFrame(frame) }"
    )
    with scripted(page, *(chunk(content=text[at : at + 40]) for at in range(0, len(text), 40)), END):
        ask(page, "At length")
        expect(page.locator(".assistant .facts")).to_contain_text("scripted@v1", timeout=30_000)
    expect(answers(page).get_by_role("heading", name="Part 1299")).to_be_in_viewport()
    assert page.evaluate("window.slow") < 1000  # milliseconds between two frames, on two busy cores
    page.locator("#talk").hover()
    page.mouse.wheel(0, -3000)
    expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    page.get_by_role("button", name="Go to the end").click()
    expect(answers(page).get_by_role("heading", name="Part 1299")).to_be_in_viewport()


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_and_is_accessible(
    visitor: Callable[..., BrowserContext], adapter: str, scheme: str, width: int
) -> None:
    page = visitor(color_scheme=scheme, viewport={"width": width, "height": 844}).new_page()
    opened(page)
    accessible(page)
    fits(page)
    opened(page, f"/chat?model={quote(adapter)}&beside={quote(BASE)}")
    ask(page)
    for column in (1, 2):
        expect(page.locator(f".c{column} .facts", has_text="tokens")).to_be_visible()
    accessible(page)
    fits(page)
    if width == 390:
        first, second = (page.locator(f".c{column}.assistant").bounding_box() for column in (1, 2))
        assert first["y"] + first["height"] <= second["y"]
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("link", name=QUESTION).first).to_be_visible()
        accessible(page)


def test_the_page_is_light(page: Page, site: Site, trained: Site) -> None:
    """As it is sent, compressed by nginx; mathematics is fetched when a formula comes."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page)
    assert not any("temml" in url for url in asked)
    assert 30_000 < sum(sizes) < 200_000
