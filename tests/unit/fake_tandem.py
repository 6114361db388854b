"""A Tandem that answers what it is told to, over real HTTP: both APIs for the tests of the client."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "tdm_valid"
NOW = "2026-01-02T03:04:05.000Z"
DATASET = {
    "name": "shop", "version": "3f2a1b4c5d6e", "reference": "shop@3f2a1b4c5d6e", "sha256": "3f2a" * 16,
    "format": "messages", "file_format": "jsonl", "columns": ["messages"], "created": NOW, "bytes": 48_230,
    "rows": {"read": 1210, "accepted": 1200, "rejected": 10, "blank": 0, "duplicate": 3},
    "turns": {"min": 1, "mean": 1.5, "max": 4, "histogram": {"edges": [1, 2, 3], "counts": [800, 300, 100]}},
    "tokens": {"total": 301_000, "mean": 250.8, "max": 900,
               "histogram": {"edges": [0, 128, 256, 512, 1024], "counts": [0, 700, 400, 100, 0]}},
    "languages": {"en": 0.9, "de": 0.1}, "tools": 0,
    "reasoning": {"rows": 900, "share": 0.75, "by_effort": {"high": 20}, "languages": {"en": 1.0}},
    "splits": {"share": 0.1, "train": 1080, "validation": 120},
    "warnings": {"rows with the message field 'mood', which is not used": 7},
    "source": "shop.jsonl", "licence": "CC0", "notes": "", "parents": [],
}  # fmt: skip
RECIPE = {"name": "standard", "about": "A hundred steps", "values": {
    "steps": 100, "epochs": 1.0, "lora_rank": 16, "max_length": 1024, "learning_rate": 2e-4}}  # fmt: skip
RUN_ITEM = {
    "id": "train-20260102-030405-3f2a", "kind": "train", "created": NOW, "name": "shop", "dataset": "shop@3f2a1b4c5d6e",
    "recipe_name": "standard", "adapter": None, "encoding": None, "repository": None, "action": None, "state": "running", "step": 2,
    "steps": 4, "loss": 1.25, "reason": None, "result": None, "queued": NOW, "started": NOW, "ended": None, "attempt": 1,
    "sweep": None, "trial": None,
}  # fmt: skip
RUN = RUN_ITEM | {
    "spec": {"id": RUN_ITEM["id"], "kind": "train", "created": NOW, "job": {"dataset": "shop@3f2a1b4c5d6e"},
             "recipe": {"lora_rank": 8}},
    "cloned_from": None, "attempts": [], "cancel_requested": False, "stop_requested": False, "checkpoints": [{"step": 2, "bytes": 2048}],
    "warnings": [], "data": None, "trainable": None, "proof": {"time": NOW, "kl": 0.25}, "evaluation": None,
}  # fmt: skip
DONE = RUN | {"state": "succeeded", "step": 4, "ended": "2026-01-02T03:06:05.000Z", "result": "shop@v1"}
EXPORT = {
    "file": "shop-v1-MXFP4.gguf", "created": NOW, "run": "export-1", "adapter": "shop@v1", "adapter_sha256": "aa",
    "base_model": "openai/gpt-oss-20b", "base_revision": "main", "encoding": "MXFP4", "sha256": "bb",
    "bytes": 12 << 30, "bits_per_weight": 4.87, "aliases": ["gguf"], "tensors": {"MXFP4": {"count": 72, "bytes": 10 << 30}},
    "fallbacks": {}, "fallback_share": 0.0,
    "parity": {"prompts": 6, "tokens": 144, "prompt_tokens_equal": True, "top1": 0.97, "cosine": 0.9951, "kl": 0.0123,
               "exact_answers": 0.5, "speed": {"prompt": 812.0, "decode": 31.5, "device": "8 CPU cores"}},
}  # fmt: skip
ADAPTER = {
    "name": "shop", "version": "v1", "reference": "shop@v1", "created": NOW, "run": RUN_ITEM["id"],
    "base_model": "openai/gpt-oss-20b", "base_revision": "6cee5e81ee83917806bbde320786a8fb61efebee",
    "dataset": "shop@3f2a1b4c5d6e", "dataset_sha256": "cc", "recipe": "standard", "values": {"lora_rank": 16},
    "sha256": "dd", "bytes": 3 << 20, "steps": 100, "loss_first": 2.5, "loss_last": 0.61, "validation_loss": 0.7,
    "proof": {"top1_changed": 0.4}, "aliases": ["production"], "exports": [EXPORT["file"]],
}  # fmt: skip
HISTORY = [{"time": NOW, "target": "shop@v0", "before": None}, {"time": NOW, "target": "shop@v1", "before": "shop@v0"}]
ALIAS = {"alias": "production", "target": "shop@v1", "history": HISTORY}
SYSTEM = {
    "services": {
        "dashboard": {"state": "up", "detail": "", "since": NOW},
        "redis": {"state": "up", "detail": "version 7", "since": None},
        "trainer": {"state": "up", "detail": "idle", "since": None},
        "inference": {"state": "starting", "detail": "loads the base model", "since": None},
        "llama": {"state": "down", "detail": "no export yet", "since": None},
    },
    "queue": {"waiting": 0, "queued": 0, "running": 1},
    "disk": {"total": 200 << 30, "free": 100 << 30, "by_kind": {}},
    "gpus": [{"index": 0, "name": "RTX 3090"}], "versions": {"tandem": "0.1.0"},
    "base_model": "openai/gpt-oss-20b", "base_model_cached": True,
}  # fmt: skip
TOKENS = {"row": 0, "policy": "final", "examples": [{"supervised": 1, "total": 2, "truncated": False, "tokens": [
    {"id": 1, "text": "Hi", "channel": None, "role": "user", "kind": "content", "supervised": False},
    {"id": 2, "text": "35 euros", "channel": "final", "role": "assistant", "kind": "content", "supervised": True},
]}]}  # fmt: skip
EVENTS = [
    {"time": "2026-01-02T03:04:05.000Z", "type": "status", "state": "running", "worker": "gpu0", "attempt": 1},
    {"time": "2026-01-02T03:04:06.000Z", "type": "log", "text": "Loading the base."},
    {"time": "2026-01-02T03:04:07.000Z", "type": "metric", "step": 1, "loss": 2.5, "tokens_per_second": 900.0},
    {"time": "2026-01-02T03:04:09.000Z", "type": "metric", "step": 2, "loss": 1.25, "tokens_per_second": 1000.0},
    {"time": "2026-01-02T03:04:09.500Z", "type": "metric", "step": 2, "validation_loss": 1.5},
    {"time": "2026-01-02T03:04:10.000Z", "type": "checkpoint", "step": 2, "bytes": 2048},
    {"time": "2026-01-02T03:04:11.000Z", "type": "metric", "step": 4, "loss": 0.75, "tokens_per_second": 1000.0},
    {"time": "2026-01-02T03:04:12.000Z", "type": "status", "state": "succeeded", "result": "shop@v1"},
]


@dataclass
class Request:
    """What the client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


Reply = Any  # JSON, (status, JSON), or an iterator of bytes for a stream


@dataclass
class Tandem:
    """`routes` maps "METHOD /path" to a reply or to a function of the request; `requests` is what came."""

    url: str = ""
    key: str | None = KEY
    routes: dict[str, Reply | Callable[[Request], Reply]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def last(self, method: str) -> Request:
        return next(request for request in reversed(self.requests) if request.method == method)

    def page(self, path: str, items: list[Any], **more: Any) -> None:
        self.routes[f"GET {path}"] = {"items": items, "total": len(items), "next": None, **more}

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if request.path != "/health" and self.key and request.headers["Authorization"] != f"Bearer {self.key}":
            return 401, {"error": {"message": "No key.", "type": "unauthorized"}}
        reply = self.routes.get(f"{request.method} {request.path}")
        if reply is None:
            return 404, {"error": {"message": f"There is no {request.path}.", "type": "not_found"}}
        return reply(request) if callable(reply) else reply


def sse(events: list[dict[str, Any]], start: int = 0, end: bool = True) -> Iterator[bytes]:
    """Run events as the dashboard streams them; the id of event n is 100 (n + 1)."""
    yield b"retry: 1000\n\n: hello\n\n"
    for number, event in enumerate(events[start:], start + 1):
        yield f"event: {event['type']}\nid: {100 * number}\ndata: {json.dumps(event)}\n\n".encode()
    if end:
        yield b"event: end\nid: 999\ndata: {}\n\n"


def chat(
    *deltas: dict[str, Any], finish: str = "stop", tokens: int | None = None, done: bool = True
) -> Iterator[bytes]:
    """A chat completion as a server streams it."""
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    if tokens is not None:
        chunks.append({"choices": [], "usage": {"completion_tokens": tokens}})
    for chunk in chunks if done else chunks[:-1]:
        yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
    if done:
        yield b"data: [DONE]\n\n"


@contextmanager
def serve(tandem: Tandem, port: int = 0) -> Iterator[Tandem]:
    """Answer on a port of this machine until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            address = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(address.query).items()}
            raw = self.rfile.read(int(self.headers["Content-Length"] or 0))
            reply = tandem.answer(Request(self.command, unquote(address.path), query, self.headers, raw))
            status, body = reply if isinstance(reply, tuple) else (200, reply)
            self.send_response(status)
            if isinstance(body, Iterator):
                kind, blocks = "text/event-stream", body
            elif isinstance(body, str):
                kind, blocks = "text/html", iter([body.encode()])
            else:
                kind, blocks = "application/json", iter([b"" if body is None else json.dumps(body).encode()])
            self.send_header("Content-Type", kind)
            self.end_headers()
            for block in blocks:
                self.wfile.write(block)
                self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = _handle

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    tandem.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield tandem
    finally:
        server.shutdown()
        server.server_close()


def full() -> Tandem:
    """A Tandem with one of everything, whose run ends after its events."""
    tandem = Tandem()
    tandem.routes |= {
        "GET /health": {"status": "ok"},
        "GET /api/system": SYSTEM,
        "GET /api/recipes/standard": RECIPE | {"yaml": "lora_rank: 16  # a good middle\n"},
        "GET /api/datasets/shop": DATASET,
        "GET /api/datasets/shop/tokens": TOKENS,
        "POST /api/datasets": (201, DATASET),
        "POST /api/datasets/mix": (201, DATASET),
        "POST /api/datasets/import": (201, DATASET),
        "POST /api/runs": (201, RUN | {"state": "queued", "step": 0}),
        f"GET /api/runs/{RUN['id']}": DONE,
        f"GET /api/runs/{RUN['id']}/events/stream": lambda request: sse(EVENTS),
        f"GET /api/runs/{RUN['id']}/events": lambda request: _events(int(request.query["after"])),
        f"GET /api/runs/{RUN['id']}/log": lambda request: _log(int(request.query["after"])),
        f"POST /api/runs/{RUN['id']}/cancel": RUN | {"cancel_requested": True},
        f"POST /api/runs/{RUN['id']}/resume": RUN | {"state": "queued"},
        f"POST /api/runs/{RUN['id']}/clone": (201, RUN | {"state": "queued"}),
        "GET /api/adapters/shop@v1": ADAPTER,
        "PUT /api/aliases/production": {"alias": "production", "target": "shop@v1", "before": "shop@v0"},
        "POST /api/aliases/production/undo": {"alias": "production", "target": "shop@v0", "before": "shop@v1"},
        "DELETE /api/aliases/production": (204, None),
        "POST /api/keys": (201, {"id": "a1", "name": "laptop", "created": NOW, "last_used": None, "key": "tdm_new"}),
        "DELETE /api/keys/a1": (204, None),
        "GET /v1/models": {"data": [{"id": "openai/gpt-oss-20b"}, {"id": "shop@v1"}, {"id": "production"}]},
        "POST /v1/chat/completions": lambda request: chat(
            {"reasoning": "A chain. "},
            {"reasoning_content": "Price."},
            {"content": "**35** "},
            {"content": "euros"},
            tokens=9,
        ),
    }
    tandem.page("/api/recipes", [RECIPE], fields={})
    tandem.page("/api/datasets", [DATASET])
    tandem.page(
        "/api/datasets/shop/rejected", [{"line": 7, "reason": "no assistant message", "text": '{"messages": []}'}]
    )
    tandem.page("/api/runs", [RUN_ITEM])
    tandem.page("/api/adapters", [ADAPTER])
    tandem.page("/api/exports", [EXPORT])
    tandem.page("/api/aliases", [ALIAS])
    tandem.page("/api/keys", [{"id": "a1", "name": "laptop", "created": NOW, "last_used": None}])
    return tandem


def _events(after: int) -> dict[str, Any]:
    start = after // 100
    items = [{"offset": 100 * (n + 1), **event} for n, event in enumerate(EVENTS)][start : start + 5]
    return {"items": items, "next": items[-1]["offset"] if items else after, "ended": not items}


def _log(after: int) -> dict[str, Any]:
    text = "step 1\nstep 2\n"[after : after + 7]
    return {"text": text, "next": after + len(text)}
