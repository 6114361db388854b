"""A model's server that says what a test scripts: for what the tiny model cannot be made to do, such as breaking off."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import BrowserContext, Page, Route

CUT = object()  # the connection is lost here
Step = str | threading.Event | object


def chunk(finish: str | None = None, **delta: str) -> str:
    """An event of a stream: `chunk(content="…")`, `chunk(reasoning="…")`, or its end."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


END = chunk("stop") + "data: [DONE]\n\n"


@contextmanager
def scripted(page: Page | BrowserContext, *steps: Step, status: int = 200) -> Iterator[list[dict]]:
    """The page's next questions are answered by `steps`: text is sent as it is, an event is waited for. Yields the requests."""
    asked: list[dict] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(steps, status, asked))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"

    def there(route: Route) -> None:
        route.continue_(url=url)

    page.route("**/v1/chat/completions", there)
    yield asked
    for step in steps:
        if isinstance(step, threading.Event):
            step.set()
    page.unroute("**/v1/chat/completions", there)
    server.shutdown()


def _handler(steps: tuple[Step, ...], status: int, asked: list[dict]) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream" if status == 200 else "application/json")
            self.send_header("X-Tandem-Model", "scripted@v1")
            self.send_header("X-Tandem-SHA256", "ab" * 32)
            self.send_header("Connection", "close")
            if CUT in steps:
                self.send_header("Content-Length", "1000000")
            self.end_headers()
            for step in steps:
                if step is CUT:
                    return
                if isinstance(step, threading.Event):
                    step.wait(20)
                else:
                    self._send(str(step))

        def _send(self, text: str) -> None:
            try:
                self.wfile.write(text.encode())
            except OSError:  # whoever asked has stopped
                return

        def log_message(self, *_: object) -> None:
            return

    return Handler
