"""How an answer looks: Markdown, tables, code, mathematics and thinking, streamed or whole, on every screen."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Site, accessible, fits
from tests.browser.scripted import END, chunk, scripted
from tests.browser.talk import QUESTION, answers, ask, bring, opened
from tests.conftest import BASE

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
