"""A real browser on the real stack: Debian's Chromium, signed in by a one-time link, with everything it complains of noted."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from services.cli import demo, stack
from services.cli.client import Client
from shared import auth, registry
from shared.store import Store
from tests.conftest import BASE, ROOT

AXE = next((ROOT / "tests" / "browser" / "vendor").glob("axe-core-*.js"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
expect.set_options(timeout=15_000)


@dataclass(frozen=True)
class Site:
    """The whole stack behind nginx, on a data directory of the test session's own."""

    url: str
    store: Store
    running: stack.Stack
    key: str


@dataclass
class Troubles:
    """What a page must not do; a test that provokes it forgives it by a pattern."""

    seen: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)

    def forgive(self, pattern: str) -> None:
        self.forgiven.append(pattern)

    def left(self) -> list[str]:
        return [text for text in self.seen if not any(re.search(pattern, text) for pattern in self.forgiven)]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, hf_home: Path) -> Iterator[Site]:
    """Empty at first: whoever needs something in it asks for `trained`, too."""
    folder = tmp_path_factory.mktemp("site")
    port = random.randrange(30000, 32000, 10)
    with stack.start(ROOT, port, folder=folder, base_model=BASE, extra={"HF_HOME": str(hf_home)}) as running:
        running.wait_healthy(120)
        yield Site(running.url, Store(running.data), running, demo.local_key(running.data, folder))


@pytest.fixture(scope="session")
def trained(site: Site) -> Site:
    """With the data set, adapter, export and aliases that the demo makes."""
    if not registry.exports(site.store):
        demo.chain(Client(site.url, key=site.key), demo.Report())
    return site


@pytest.fixture
def adapter(trained: Site) -> str:
    """The newest version of the demo's adapter."""
    return next(card.reference for card in registry.adapters(trained.store) if card.name == "workshop")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def visitor(browser: Browser, site: Site, troubles: Troubles) -> Iterator[Callable[..., BrowserContext]]:
    """`visitor()` is a browser of its own, signed in; options are those of a Playwright context (viewport, color_scheme)."""
    opened: list[BrowserContext] = []

    def open_(**options: object) -> BrowserContext:
        context = browser.new_context(base_url=site.url, **{"viewport": {"width": 1440, "height": 900}, **options})
        context.on("console", lambda m: m.type in ("error", "warning") and troubles.seen.append(f"console: {m.text}"))
        context.on("weberror", lambda e: troubles.seen.append(f"script: {e.error}"))
        context.on("request", lambda r: _stranger(r.url, site.url) and troubles.seen.append(f"request: {r.url}"))
        context.request.get(f"/sign-in?token={auth.new_sign_in(site.store)}")
        opened.append(context)
        return context

    yield open_
    for context in opened:
        context.close()
    assert not troubles.left()


@pytest.fixture
def page(visitor: Callable[..., BrowserContext]) -> Page:
    return visitor().new_page()


def accessible(page: Page) -> None:
    """Fails with axe-core's words for each violation on the page as it stands."""
    page.evaluate(AXE.read_text())  # by the debugger, which no content security policy binds
    found = page.evaluate("async () => (await axe.run()).violations")
    assert not found, "\n".join(f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in found)


def fits(page: Page) -> None:
    """Fails if the page can be scrolled sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page.url


def _stranger(url: str, home: str) -> bool:
    return urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).netloc != urlsplit(home).netloc
