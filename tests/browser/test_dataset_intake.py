"""Files that come in as data sets, in the browser: dropped or chosen, read, refused with a reason, their rejected rows shown."""

# ruff: noqa: F811

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Troubles, accessible
from tests.browser.datasets_made import line, made  # noqa: F401  # a fixture, used by its name

ODD = '<img src=x onerror="document.title=1"> <script>document.title=2</script> & "<b>"'


def write(folder: Path, name: str, *lines: str) -> Path:
    (folder / name).write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return folder / name


def upload(page: Page, file: Path) -> None:
    page.goto("/datasets")
    page.get_by_label("Choose a file").set_input_files(file)


# ---- a file that comes in


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


# ---- what is refused


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


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    page.goto("/datasets")
    page.evaluate("document.getElementById('upload').dataset.limit = 100")
    sent: list[str] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.url))
    page.get_by_label("Choose a file").set_input_files(write(tmp_path, "fat.jsonl", line("a", "b" * 200)))
    expect(page.get_by_role("alert")).to_contain_text("at most 100 B are taken")
    assert not sent


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
