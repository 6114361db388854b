"""A dashboard alone, on a data directory and a Hugging Face cache of the test's own: for what would disturb the whole stack."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from werkzeug.serving import make_server

from services.dashboard import create_app
from shared import auth
from shared.queue import celery_app
from shared.settings import Settings
from shared.store import Store
from tests.browser.conftest import Troubles


@dataclass(frozen=True)
class Alone:
    """A dashboard and a page that is signed in to it. Nothing works off its queue."""

    settings: Settings
    store: Store
    url: str
    page: Page


@pytest.fixture
def alone(settings: Settings, tmp_path: Path, browser: Browser, troubles: Troubles) -> Iterator[Alone]:
    settings = settings.model_copy(update={"hf_home": tmp_path / "hf", "inference_url": "http://127.0.0.1:1"})
    store = Store(settings.data)
    server = make_server("127.0.0.1", 0, create_app(settings, store, celery_app(settings)), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    context = browser.new_context(base_url=url, viewport={"width": 1440, "height": 900})
    context.on("console", lambda m: m.type in ("error", "warning") and troubles.seen.append(f"console: {m.text}"))
    context.on("weberror", lambda e: troubles.seen.append(f"script: {e.error}"))
    context.request.get(f"/sign-in?token={auth.new_sign_in(store)}")
    yield Alone(settings, store, url, context.new_page())
    context.close()
    server.shutdown()
    assert not troubles.left(), troubles.left()
