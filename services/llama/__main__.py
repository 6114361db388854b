"""The GGUF server: llama.cpp over the export that an alias names, or the newest one; changed when that changes.

python -m services.llama --host 127.0.0.1 --port 8000
"""

import argparse
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from shared import logs, registry
from shared import settings as environment
from shared.settings import Settings
from shared.store import Store

LOOK_SECONDS = 1.0
logger = logging.getLogger("tandem.llama")


def wanted(store: Store, alias: str) -> Path | None:
    """The GGUF file to serve: where `alias` points, else the newest export; None while there is none."""
    target, card = registry.aliases(store).get(alias), registry.served_export(store, alias)
    if target and (card is None or card.file != target):
        logger.warning("The alias %s points at %s, which is not a GGUF export.", alias, target)
    return store.export(card.file) if card else None


class _Empty(BaseHTTPRequestHandler):
    """What answers while there is nothing to serve."""

    def do_GET(self) -> None:
        if self.path == "/metrics":  # an exposition without samples: the scrape succeeds
            status, media, data = 200, "text/plain; version=0.0.4; charset=utf-8", f"# {NOTHING}\n".encode()
        else:
            healthy = self.path == "/health"
            error = {"error": {"message": NOTHING, "type": "unavailable_error", "code": 503}}
            status, media = 200 if healthy else 503, "application/json"
            data = json.dumps({"status": "ok", "model": None} if healthy else error).encode()
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


NOTHING = "There is no GGUF export yet. Export an adapter first: tandem export NAME@VERSION"


class Server:
    """What holds the port: a notice while there is nothing to serve, then one llama.cpp process at a time."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self.settings, self.host, self.port = settings, host, port
        self.notice: ThreadingHTTPServer | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def serve(self, file: Path | None) -> None:
        """Let go of the port, requests in flight first, and take it again for `file`."""
        self.stop()
        if file is None:
            self.notice = ThreadingHTTPServer((self.host, self.port), _Empty)
            threading.Thread(target=self.notice.serve_forever, daemon=True).start()
            return
        command = [
            sys.executable,
            "-m",
            "shared.llama_server",
            str(file),
            "--host",
            self.host,
            "--port",
            str(self.port),
        ]
        command += ["--alias", file.stem, "--parallel", str(self.settings.gguf_parallel)]
        command += [
            "--context-tokens",
            str(self.settings.context_tokens),
            "--gpu-layers",
            str(self.settings.gguf_gpu_layers),
        ]
        self.process = subprocess.Popen(command)

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        if self.notice:
            self.notice.shutdown()
            self.notice.server_close()
            self.notice = None
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    values = parser.parse_args()
    logs.to_stdout("llama")
    settings = environment.load()
    store = Store(settings.data)
    server = Server(settings, values.host, values.port)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    current = wanted(store, settings.gguf_alias)
    server.serve(current)
    while not stopping.wait(LOOK_SECONDS):
        new = wanted(store, settings.gguf_alias)
        if new != current or server.died():
            if server.died():
                time.sleep(LOOK_SECONDS)
            current = new
            server.serve(current)
    server.stop()


if __name__ == "__main__":
    main()
