"""nginx before a real dashboard: what it lets through to whom, and what of the services' metrics it keeps inside."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from werkzeug.serving import make_server

from services.cli import stack_files
from services.cli.stack_files import HOST, Layout
from shared.settings import Settings
from tests.conftest import ROOT, free_port, wait_for
from tests.integration.api import Api


class Echo(BaseHTTPRequestHandler):
    """Stands for a service: tells the path and the headers with which it was asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"echo {self.path}\n{self.headers}".encode())

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class WayIn:
    url: str
    key: dict[str, str]

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=10)


def row_of_ports() -> int:
    """A port that is free together with the four after it."""
    while True:
        port = free_port()
        sockets = [socket.socket() for _ in range(5)]
        try:
            for offset, probe in enumerate(sockets):
                probe.bind((HOST, port + offset))
            return port
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()


@pytest.fixture
def way_in(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WayIn]:
    if not stack_files.find("nginx"):
        pytest.skip("nginx is not installed")
    layout, api = Layout(ROOT, tmp_path / "stack", row_of_ports()), Api(settings)
    stack_files.write(layout)
    conf = layout.folder / "nginx.conf"
    grafana = free_port()
    conf.write_text(conf.read_text().replace(f"set $grafana {HOST}:9;", f"set $grafana {HOST}:{grafana};"))
    servers = [make_server(HOST, layout.ports["dashboard"], api.app, threaded=True)]
    servers += [ThreadingHTTPServer((HOST, port), Echo) for port in (layout.ports["llama"], grafana)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    nginx = subprocess.Popen(stack_files.commands(layout)["nginx"])
    url = f"http://{HOST}:{layout.port}"
    wait_for(lambda: _answers(url), 10, "nginx answers")
    yield WayIn(url, {"Authorization": f"Bearer {api.key}"})
    nginx.terminate()
    nginx.wait(10)
    for server in servers:
        server.shutdown()
        server.server_close()
    shutil.rmtree(layout.folder)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False


def test_metrics_are_reached_with_a_key_and_not_without(way_in: WayIn) -> None:
    assert "tandem_service_up" in way_in.get("/metrics", **way_in.key).text
    for path in ("/metrics", "//metrics", "/%6Detrics", "/x/../metrics"):
        assert way_in.get(path).status_code == 401
        assert way_in.get(path, **{"X-Real-IP": ""}).status_code == 401


def test_the_metrics_of_the_gguf_server_stay_inside(way_in: WayIn) -> None:
    assert way_in.get("/gguf/health", **way_in.key).text.startswith("echo /health")
    for path in ("/gguf/metrics", "/gguf//metrics", "/gguf/%6Detrics", "/gguf/./metrics?x=1"):
        assert way_in.get(path, **way_in.key).status_code == 404


def test_grafana_is_for_whoever_is_in_and_sees_no_key_and_no_session(way_in: WayIn) -> None:
    assert way_in.get("/grafana/").status_code == 401
    asked = way_in.get("/grafana/api/health?a=b", Cookie="tandem=ours; grafana_session=theirs", **way_in.key).text
    assert asked.startswith("echo /grafana/api/health?a=b")
    assert "Cookie: grafana_session=theirs" in asked
    assert "tdm_" not in asked and "ours" not in asked
