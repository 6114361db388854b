"""What the tests of the comparison do again and again: name the demo's adapter, ask, answer in the model's place."""

import json

from playwright.sync_api import Page, Route

from shared import registry
from tests.browser.conftest import Site


def first(site: Site) -> str:
    return registry.aliases(site.store)["production"]


def ask(page: Page, reference: str, question: str = "When are you open?") -> None:
    page.goto(f"/adapters/{reference}/compare#q={question}")
    page.get_by_role("button", name="Compare", exact=True).click()


def answered(text: str, sha256: str):
    """An inference server that answers everything with `text` from the weights `sha256`."""
    chunk = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}

    def answer(route: Route) -> None:
        headers = {"X-Tandem-Model": "whatever", "X-Tandem-SHA256": sha256, "Content-Type": "text/event-stream"}
        route.fulfill(status=200, headers=headers, body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

    return answer
