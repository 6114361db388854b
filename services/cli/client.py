"""The client of the REST API at {url}/api and of OpenAI's at {url}/v1. Every error is a Failure with one sentence."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from services.cli.sse import parse

CHUNK = 1 << 20
PAGE = 200
LOST_AFTER = 300.0  # seconds without a server after which following gives up
CONNECT, READ, THINK = 5.0, 60.0, 900.0  # seconds; the first answer after a start waits for the model to load


class Failure(Exception):
    """Something that a person must know, in a sentence with the way out. `status` is the HTTP status, if there is one."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class Unreachable(Failure):
    """Nothing answers, or what answers is not ready."""


@dataclass
class Client:
    """Both APIs of one Tandem. `transport` replaces the network, `sleep` the waiting between two tries."""

    url: str
    key: str | None = None
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        host = urlsplit(self.url).hostname or ""
        try:
            self.http = httpx.Client(
                base_url=self.url,
                headers=headers,
                transport=self.transport,
                timeout=httpx.Timeout(READ, connect=CONNECT),
                trust_env=host not in ("127.0.0.1", "localhost", "::1"),  # a proxy does not lead to this machine
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise Failure(f"{self.url} with this key cannot be used: {error}. Correct --url or --key.") from None
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise Failure(f"{self.url!r} is no address: write it as http://host:port.")

    def get(self, path: str, **params: Any) -> Any:
        """GET {url}/api{path}; parameters that are None are left out."""
        return self.call("GET", path, params=params)

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """POST {url}/api{path} with a JSON body; fields of it that are None are left out."""
        return self.call("POST", path, params=params, json=None if body is None else _given(body))

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """PUT {url}/api{path} with a JSON body."""
        return self.call("PUT", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE {url}/api{path}."""
        return self.call("DELETE", path)

    def call(self, method: str, path: str, *, prefix: str = "/api", **options: Any) -> Any:
        """The decoded JSON of an answer, None if it has no body. Raises Failure."""
        options["params"] = _given(options.get("params") or {})
        with self._failures():
            response = self.http.request(method, prefix + path, **options)
        return self._decoded(response)

    def listing(self, path: str, limit: int = PAGE, **params: Any) -> list[dict[str, Any]]:
        """The items of a list, up to `limit`, page by page."""
        items: list[dict[str, Any]] = []
        while len(items) < limit:
            page = self.get(path, **params, limit=min(limit - len(items), PAGE), offset=len(items) or None)
            items += page["items"]
            if not page["items"] or not page.get("next"):
                break
        return items

    def upload(self, path: str, file: Path, progress: Callable[[int], None], **params: Any) -> Any:
        """POST the bytes of `file`; `progress` gets the size of each block that was handed to the network."""

        def blocks() -> Iterator[bytes]:
            with open(file, "rb") as source:
                while block := source.read(CHUNK):
                    yield block
                    progress(len(block))

        headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
        timeout = httpx.Timeout(THINK, connect=CONNECT)  # the answer comes when every row has been read
        return self.call("POST", path, params=params, content=blocks(), headers=headers, timeout=timeout)

    def download(self, path: str, target: Path, progress: Callable[[int], None]) -> None:
        """GET a file into `target`, by way of `target`.part, which an earlier try may have left: the rest is asked for.

        `progress` gets the bytes that are there so far."""
        partial = target.with_name(target.name + ".part")
        done = partial.stat().st_size if partial.exists() else 0
        headers = {"Range": f"bytes={done}-"} if done else {}
        with self._failures(), self.http.stream("GET", "/api" + path, headers=headers) as response:
            if response.status_code != 416:  # the part is the whole already
                self._check(response)
                done = done if response.status_code == 206 else 0
                with open(partial, "ab" if done else "wb") as file:
                    for block in response.iter_bytes(CHUNK):
                        file.write(block)
                        done += len(block)
                        progress(done)
        partial.replace(target)

    def models(self) -> list[str]:
        """The names that /v1 serves now."""
        return [model["id"] for model in self.call("GET", "/models", prefix="/v1")["data"]]

    def events(
        self, run_id: str, after: int = 0, lost: Callable[[str], None] = lambda sentence: None
    ) -> Iterator[dict[str, Any]]:
        """The events of a run as they come, from byte offset `after`, until it has ended.

        A connection that breaks is opened again where it broke (Last-Event-ID), which `lost` is told; after five
        minutes without a server the Failure is raised, and so is a refusal (401, 404)."""
        path, last = f"/api/runs/{part(run_id)}/events/stream", str(after)
        began, silent_since, wait = False, None, 0.0
        while True:
            try:
                for event in self._stream(path, last):
                    began, silent_since, wait, last = True, None, 0.0, event.id or last
                    if event.type == "end":
                        return
                    yield {"type": event.type, **json.loads(event.data)}
                began, problem = True, Unreachable("The stream of events ended before the run did.")
            except Unreachable as failure:
                if not began:
                    raise
                problem = failure
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > LOST_AFTER:
                raise problem
            wait = min(wait * 2 or 0.5, 10.0)
            lost(f"The connection is lost; trying again in {wait:g} s.")
            self.sleep(wait)

    def _stream(self, path: str, last: str) -> Iterator[Any]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last != "0" else {})
        with self._failures(), self.http.stream("GET", path, headers=headers) as response:
            self._check(response)
            yield from parse(response.iter_bytes())

    def chat(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed chat completion. Raises Failure, also for an error within the stream."""
        body = _given(body) | {"stream": True, "stream_options": {"include_usage": True}}
        timeout = httpx.Timeout(THINK, connect=CONNECT)
        with self._failures(), self.http.stream("POST", "/v1/chat/completions", json=body, timeout=timeout) as response:
            self._check(response)
            for event in parse(response.iter_bytes()):
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise Failure(_message(chunk) or "The server stopped with an error.")
                yield chunk
        raise Failure("The answer broke off: the server closed the connection. What came is kept.")

    def _check(self, response: httpx.Response) -> None:
        if response.is_error:
            response.read()
            self._decoded(response)

    def _decoded(self, response: httpx.Response) -> Any:
        try:
            body = response.json() if response.content else None
        except ValueError:
            body = response.text if response.is_error else NotImplemented
        if response.is_success and body is not NotImplemented:
            return body
        raise self._failure(response, body)

    def _failure(self, response: httpx.Response, body: Any) -> Failure:
        status, message = response.status_code, _message(body)
        if status == 401:
            what = "does not accept this key" if self.key else "wants a key"
            return Failure(
                f"{self.url} {what}. A local stack writes one to .local/key, and who is in makes others with "
                "`tandem keys create NAME`; store yours with `tandem login KEY`.",
                status,
            )
        if status in (502, 503, 504):
            sentence = f"{self.url} answers, but the service behind it does not ({status}). `tandem doctor` says which."
            return Unreachable(message or sentence, status)
        if message:
            return Failure(message, status)
        if status == 413:
            return Failure(
                "The file is larger than the server takes. Split it, or raise TANDEM_UPLOAD_LIMIT_BYTES.", status
            )
        what = f"{status} {response.reason_phrase}".strip()
        where = f"{response.url.path} gave {what}"
        return Failure(f"What answers at {self.url} does not look like Tandem: {where}. Check --url.", status)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise Unreachable(
                f"Nothing answers at {self.url}. Is the stack running? Start it with `docker compose up` or `make demo`."
            ) from None
        except httpx.TimeoutException:
            raise Unreachable(f"{self.url} took too long to answer. `tandem doctor` says what is wrong.") from None
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Unreachable(
                f"The connection to {self.url} broke: {str(error).rstrip('.') or type(error).__name__}."
            ) from None


def part(name: str) -> str:
    """A name as one segment of a path: `shop@v1` stays, a slash is escaped."""
    return quote(name, safe="@")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _message(body: Any) -> str | None:
    """The sentence of {"error": {"message", "details"?}}, OpenAI's form as well, and the reason of each rejected row."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return error
    if not isinstance(error, dict) or not error.get("message"):
        return None
    details = error.get("details") or []
    lines = [f"line {d.get('line')}: {d['reason']}" for d in details if isinstance(d, dict) and "reason" in d]
    lines += [d for d in details if isinstance(d, str) and d not in error["message"]]
    return "\n  ".join([error["message"], *lines[:20]])
