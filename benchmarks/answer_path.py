"""How many tokens a second the server can carry on one core, whatever makes them: many streams over an engine that is never
waited for.

    python -m benchmarks.answer_path [--streams 128] [--tokens 400] [--each 1] [--profile]

The server is a process of its own and is asked over HTTP; what counts is its own processor time, so that the client beside
it does not.
"""

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import os
import pstats
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

from services.inference.app import create_app
from services.inference.door import Server
from services.inference.engine import Sampling, Token, Weights
from services.inference.residence import Base
from services.trainer import tiny
from shared import hub
from shared.gpus import Glance
from shared.harmony import Encoder, Piece
from shared.settings import Settings

WORDS = "The workshop is open from nine to five, and on Saturdays until noon. Bring the receipt along. "


class Instant:
    """An engine whose answers are thought out and then told, as long as is asked for, `each` tokens at a time."""

    name = "instant"

    def __init__(self, encoder: Encoder, each: int) -> None:
        self.each = each
        channel = [_piece("<|channel|>"), _piece("analysis"), _piece("<|message|>")]
        final = [_piece("<|end|>"), _piece("<|start|>"), _piece("assistant"), _piece("<|channel|>"), _piece("final")]
        words = encoder.encode([_piece(WORDS)])
        thought = encoder.encode(channel) + words * 2 + encoder.encode([*final, _piece("<|message|>")])
        self.ids = thought + words * 1000

    async def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """As the seam says; the others have their turn between two yields."""
        for at in range(0, sampling.max_tokens, self.each):
            await asyncio.sleep(0)
            yield [Token(id_) for id_ in self.ids[at : min(at + self.each, sampling.max_tokens)]]


def _piece(text: str) -> Piece:
    return Piece(text, "assistant", None, "special" if text.startswith("<|") else "content", None)


def serve(hf_home: Path, port: int, each: int, profile: bool) -> None:
    """Serve until the parent ends it; with `profile`, say then where the time went."""
    folder = hub.snapshot(tiny.REPO_ID, "main", hf_home)
    encoder = hub.encoder(folder)
    engine, base = Instant(encoder, each), Base(folder, encoder, "0" * 64)
    always = {"told": lambda: {"status": "ok"}, "base": lambda: base}
    settings = Settings(data=Path(tempfile.mkdtemp()), hf_home=hf_home, redis_url="redis://none/0", base_model="base")
    app = create_app(settings, SimpleNamespace(name=engine.name, generate=engine.generate, **always), engine, Glance())
    server = Server(app, "127.0.0.1", port, 1)
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    server.run()
    if profiler:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)


async def ask(port: int, tokens: int) -> int:
    """Read one stream; returns its bytes."""
    body = json.dumps(
        {"model": "base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens, "stream": True}
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    size = 0
    while chunk := await reader.read(1 << 16):
        size += len(chunk)
    writer.close()
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--each", type=int, default=1, help="tokens that come together")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--hf-home", type=Path, default=Path(".local/hf"))
    values = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(values.hf_home, port, values.each, values.profile))
    process.start()
    clock = f"/proc/{process.pid}/stat"

    def used() -> float:
        fields = Path(clock).read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def run() -> None:
        while True:
            try:
                await ask(port, 2)
                break
            except OSError:
                await asyncio.sleep(0.2)
        before, began = used(), time.monotonic()
        sizes = await asyncio.gather(*(ask(port, values.tokens) for _ in range(values.streams)))
        cpu, wall = used() - before, time.monotonic() - began
        made = values.streams * values.tokens
        print(
            f"{made} tokens, {sum(sizes) / made:.0f} bytes each: {cpu:.2f} s of processor, {wall:.2f} s; "
            f"{made / cpu:,.0f} tokens a second of processor, {1e6 * cpu / made:.1f} µs each"
        )

    asyncio.run(run())
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
