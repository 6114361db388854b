"""Data sets in the browser: a file comes in, is looked at row by row and token by token, mixed with another, and goes."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from services.cli.client import Client
from shared import registry, runs
from shared.schemas import Job
from tests.browser.conftest import Site, Troubles, accessible, fits

ODD = '<img src=x onerror="document.title=1"> <script>document.title=2</script> & "<b>"'
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}


def line(question: str, answer: str, **extra: object) -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **extra}]}
    )


def write(folder: Path, name: str, *lines: str) -> Path:
    (folder / name).write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return folder / name


def upload(page: Page, file: Path) -> None:
    page.goto("/datasets")
    page.get_by_label("Choose a file").set_input_files(file)


@pytest.fixture
def made(site: Site) -> Callable[..., str]:
    """`made("name", *lines)` is a data set of these lines, by its reference."""

    def make(name: str, *lines: str) -> str:
        content = "".join(f"{each}\n" for each in lines).encode()
        client = Client(site.url, key=site.key)
        return client.call("POST", "/datasets", params={"name": name, "filename": f"{name}.jsonl"}, content=content)[
            "reference"
        ]

    return make


def talk(*, turns: int = 1, **extra: Any) -> str:
    """A conversation with thinking, an effort and tools."""
    begin = [
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "thinking": "I must look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "assistant", "content": "It is 12 °C.\n\tMild.", "thinking": "Now I know."},
    ]
    again = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes.", "thinking": "Am I?"}]
    return json.dumps({"messages": begin + again * (turns - 1), "tools": [TOOL], "reasoning_effort": "high", **extra})


# ---- the list, and a file that comes in


def test_a_dropped_file_becomes_a_data_set_and_shows_itself(page: Page, tmp_path: Path) -> None:
    page.goto("/datasets")
    drop = """content => {
        const files = new DataTransfer();
        files.items.add(new File([content], "dropped.jsonl"));
        for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: files }));
    }"""
    page.evaluate(drop, line("2+2?", "4") + "\n" + '{"messages": []}\n')
    expect(page).to_have_url(re.compile(r"/datasets/dropped@\w{12}$"))
    expect(page.get_by_role("link", name="Rejected 1")).to_be_visible()


def test_a_large_file_is_seen_being_read(page: Page, tmp_path: Path) -> None:
    chance = random.Random(1)
    words = ["wheel", "chain", "bike", "saddle", "winter", "price"]
    rows = [line(f"question {n}", " ".join(chance.choices(words, k=250))) for n in range(4000)]
    upload(page, write(tmp_path, "large.jsonl", *rows))
    expect(page.locator("#told")).to_contain_text(re.compile(r"Reading rows: [\d.]+ MiB of [\d.]+ MiB · [\d,]+ rows"))
    expect(page).to_have_url(re.compile(r"/datasets/large@"), timeout=60_000)
    expect(page.get_by_role("link", name="Rows 4,000")).to_be_visible()


def test_a_file_without_a_usable_row_is_explained_and_another_may_be_chosen(
    page: Page, tmp_path: Path, troubles: Troubles
) -> None:
    troubles.forgive("422")
    page.goto("/datasets")
    page.get_by_label("Licence").fill("CC0-1.0")
    page.get_by_label("Choose a file").set_input_files(write(tmp_path, "bad.jsonl", *['{"messages": []}'] * 30))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("None of the 30 rows of bad.jsonl can be used")
    expect(alert.locator("tbody tr")).to_have_count(20)
    expect(alert.locator("tbody tr").first).to_contain_text("'messages' is an empty list")
    expect(alert).not_to_contain_text("line 1:")
    expect(page.get_by_role("button", name="Choose another file")).to_be_focused()
    accessible(page)
    pdf = tmp_path / "paper.pdf"
    pdf.write_bytes(b"%PDF-1.7 and more")
    page.get_by_label("Choose a file").set_input_files(pdf)
    expect(alert).to_contain_text("paper.pdf is not a file of conversations")
    page.get_by_label("Choose a file").set_input_files(write(tmp_path, "nothing.jsonl"))
    expect(alert).to_contain_text("nothing.jsonl is empty")
    page.get_by_label("Choose a file").set_input_files(write(tmp_path, "good.jsonl", line("a", "b")))
    expect(page.get_by_text("CC0-1.0")).to_be_visible()


def test_a_connection_that_breaks_while_rows_are_read_loses_nothing(
    page: Page, tmp_path: Path, troubles: Troubles
) -> None:
    troubles.forgive("ERR_FAILED|404")
    page.add_init_script("""const send = XMLHttpRequest.prototype.send;
        XMLHttpRequest.prototype.send = function (body) {
            if (body instanceof File) this.onload = () => this.onerror();  // the answer gets lost
            return send.call(this, body);
        };""")
    upload(page, write(tmp_path, "torn-off.jsonl", line("a", "still here")))
    expect(page).to_have_url(re.compile(r"/datasets/torn-off@"))
    page.route("**/api/datasets?*", lambda route: route.abort())
    upload(page, write(tmp_path, "never-there.jsonl", line("a", "b")))
    expect(page.get_by_role("alert")).to_contain_text("nothing was kept")


def test_the_same_content_again_is_said_and_linked(page: Page, tmp_path: Path, made: Callable[..., str]) -> None:
    ref = made("twice", line("said", "twice"))
    upload(page, write(tmp_path, "twice.jsonl", line("said", "twice")))
    expect(page.get_by_text("The same content is already here")).to_be_visible()
    page.locator("#told").get_by_role("link", name=ref).click()
    expect(page.get_by_role("heading", name=ref)).to_be_visible()


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    page.goto("/datasets")
    page.evaluate("document.getElementById('upload').dataset.limit = 100")
    sent: list[str] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.url))
    page.get_by_label("Choose a file").set_input_files(write(tmp_path, "fat.jsonl", line("a", "b" * 200)))
    expect(page.get_by_role("alert")).to_contain_text("at most 100 B are taken")
    assert not sent


def test_a_csv_with_a_byte_order_mark_and_semicolons_and_a_json_list_are_read(page: Page, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('\ufeffprompt;completion\r\nWas kostet das?;Drei "Euro"\r\n"A;B";Ja\r\n', encoding="utf-8")
    upload(page, table)
    expect(page.get_by_role("link", name="Rows 2")).to_be_visible()
    upload(page, write(tmp_path, "list.json", f"[{line('Hi', 'Hello')}]"))
    expect(page.get_by_role("link", name="Rows 1", exact=True)).to_be_visible()


def test_markup_in_a_file_is_text_everywhere(page: Page, tmp_path: Path) -> None:
    name = 'x<img src=x onerror="document.title=3">.jsonl'
    bad = json.dumps({"messages": [{"role": "user", "content": ODD}]})
    upload(page, write(tmp_path, name, line(ODD, ODD, thinking=ODD), bad))
    expect(page).to_have_url(re.compile("/datasets/x-img"))
    expect(page.get_by_text(name)).to_be_visible()
    home = page.url
    for tab in ("/rows", "/rows/0", "/rejected", "/tokens"):
        page.goto(home + tab)
        expect(page.locator("main")).to_contain_text("<script>document.title=2</script>")
        assert "Tandem" in page.title()
        assert page.locator("main img, main script").count() == 0
    page.goto("/datasets?q=x-img")
    expect(page.locator("#list")).to_contain_text(name)


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


def test_a_data_set_of_the_hub_that_is_not_cached_can_be_fetched_as_a_run(page: Page, troubles: Troubles) -> None:
    troubles.forgive("409")
    page.goto("/datasets")
    page.get_by_text("From the Hugging Face hub").click()
    page.get_by_label("Repository").fill("someone/something")
    page.get_by_label("Repository").press("Enter")
    expect(page.get_by_text("is not in the cache yet")).to_be_visible()
    with page.expect_response("**/api/runs") as answer:
        page.get_by_role("button", name="Fetch it").click()
    run = answer.value.json()
    assert (run["kind"], run["spec"]["job"]["repository_type"]) == ("fetch", "dataset")
    expect(page.get_by_role("link", name=run["id"])).to_be_visible()


# ---- what is inside


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


def test_rejected_rows_are_found_by_the_kind_of_their_reason(page: Page, made: Callable[..., str]) -> None:
    torn = ['{"messages": [{"role": "user"'] * 30
    wizards = [json.dumps({"messages": [{"role": f"wizard{n}", "content": "hi"}]}) for n in range(3)]
    ref = made("mixed-up", line("a", "b"), *torn, *wizards)
    page.goto(f"/datasets/{ref}/rejected")
    rows = page.locator("#list tbody tr")
    expect(rows.first.locator("td").nth(0)).to_have_text("2")
    expect(rows.first.locator("td").nth(1)).to_have_text(re.compile("^invalid JSON"))
    expect(page.get_by_text("Page 1 of 2")).to_be_visible()
    page.get_by_label("Kind of reason").select_option(index=2)
    expect(rows).to_have_count(3)
    page.get_by_label("Search reason or text").fill("WIZARD1")
    expect(rows).to_have_count(1)
    expect(rows.locator("td").first).to_have_text("33")


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
    assert page.locator("[data-i]").count() == 3000
    page.get_by_role("link", name="Its end").click()
    expect(page.locator("b", has_text="<|return|>")).to_be_visible()
    page.get_by_role("link", name="Before").click()
    assert page.locator("[data-i]").count() == 3000
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
