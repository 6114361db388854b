"""The way in: closed when the server is to stop, so that what is being answered ends and nothing new begins."""

import argparse
import time
from collections.abc import MutableMapping
from types import FrameType
from typing import Any

import uvicorn
from starlette.responses import JSONResponse

from services.inference.protocol import error

RETRY_SECONDS = 10  # until another process may have taken over
LAST_SECONDS = 5  # for what goes on after that time to notice that it was cut off


def address(description: str | None) -> tuple[str, int]:
    """Host and port, as the command line has them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    values = parser.parse_args()
    return values.host, values.port


class Door:
    """ASGI middleware that counts the answers in progress, and refuses new ones once it is closed."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.inside = 0
        self.closed_at: float | None = None

    def close(self) -> None:
        self.closed_at = self.closed_at or time.monotonic()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        if self.closed_at is not None:
            body = error("The server is stopping. Try again in a moment.", "unavailable_error", code="stopping")
            headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
            return await JSONResponse(body, 503, headers)(scope, receive, send)
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


class Server(uvicorn.Server):
    """An application behind a door. Told to stop, it closes that and stops when all have left, at the latest after `seconds`;
    told again, at once."""

    def __init__(self, app: Any, host: str, port: int, seconds: float) -> None:
        self.door, self.seconds = Door(app), seconds
        more = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": LAST_SECONDS}
        super().__init__(uvicorn.Config(self.door, host=host, port=port, **more))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.door.closed_at is not None:
            return super().handle_exit(sig, frame)
        return self.door.close()

    async def on_tick(self, counter: int) -> bool:
        closed_at = self.door.closed_at
        if closed_at is not None and (not self.door.inside or time.monotonic() - closed_at >= self.seconds):
            self.should_exit = True
        return await super().on_tick(counter)
