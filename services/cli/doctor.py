"""tandem doctor: what works, what does not, and the way out."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import typer
from rich.text import Text

from services.cli import show
from services.cli.client import Client, Failure, Unreachable
from services.cli.context import Json, api

Level = Literal["ok", "warn", "fail"]
STYLES: dict[str, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
PYTHON = (3, 11)  # the version that every pinned package is tested with
FREE_WARN, FREE_FAIL = (
    50 << 30,
    1 << 30,
)  # bytes: a merged model and its GGUF take about 50 GB; below 1 GiB runs are refused
SERVICES = {
    "dashboard": "docker compose logs dashboard",
    "redis": "docker compose up -d redis",
    "trainer": "docker compose logs trainer",
    "inference": "docker compose logs inference",
    "llama": "docker compose logs llama",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what to do about it."""

    name: str
    level: Level
    found: str
    way_out: str = ""


def doctor(ctx: typer.Context, json: Json = False) -> None:
    """Check the services and this machine. Exits with 1 if something fails."""
    client = api(ctx)
    remote = list(server(client))
    checks = remote + list(machine(reached=remote[0].level == "ok"))
    if json:
        show.raw([asdict(check) for check in checks])
    else:
        rows = [(Text(c.level, style=STYLES[c.level]), c.name, c.found, c.way_out) for c in checks]
        show.table(["!", "!check", "found", "way out"], rows, "")
    if any(check.level == "fail" for check in checks):
        raise typer.Exit(1)


def server(client: Client) -> Iterator[Check]:
    """Does Tandem answer, is the key good, and how does /api/system say that it stands?"""
    try:
        client.call("GET", "/health", prefix="")
    except Failure as failure:
        yield Check("url", "fail", str(failure), "docker compose up, or make demo; or another --url")
        return
    yield Check("url", "ok", f"{client.url} answers")
    try:
        system = client.get("/system")
    except Unreachable as failure:
        yield Check("dashboard", "fail", str(failure), SERVICES["dashboard"])
        return
    except Failure as failure:
        yield Check("key", "fail", str(failure), "tandem login KEY")
        return
    yield Check("key", "ok", "accepted")
    for name, service in system["services"].items():
        yield _service(name, service)
    yield _disk(system["disk"])
    yield _base_model(system["base_model"], system["base_model_cached"])
    yield _gpus(system["gpus"])


def machine(reached: bool) -> Iterator[Check]:
    """What this machine has to run a stack; only a warning where one is reached already."""
    version = platform.python_version()
    good = sys.version_info[:2] == PYTHON
    yield Check("python", "ok" if good else "warn", version, "" if good else "`make demo` needs Python 3.11")
    docker, compose = _run("docker", "--version"), _run("docker", "compose", "version", "--short")
    local = [name for name in ("redis-server", "nginx") if not shutil.which(name)]
    lacking: Level = "warn" if reached or not local or (docker and compose) else "fail"
    yield _tool("docker", docker, lacking, "https://docs.docker.com/engine/install")
    yield _tool("docker compose", compose and f"version {compose}", lacking, "install the compose plugin of Docker")
    for name in ("redis-server", "nginx"):
        install = f"only for `make demo` without Docker: apt install {name}"
        yield _tool(name, shutil.which(name), "warn", install)
    cards = _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    yield _tool(
        "nvidia-smi", cards and ", ".join(cards.splitlines()), "warn", "no GPU here: a tiny model stands in on the CPU"
    )


def _service(name: str, service: dict[str, Any]) -> Check:
    state, detail = service["state"], service.get("detail") or ""
    level: Level = {"up": "ok", "asleep": "ok", "starting": "warn"}.get(state, "warn" if name == "llama" else "fail")  # type: ignore[assignment]
    since = f" for {show.between(service['since'], None)}" if service.get("since") else ""
    found = f"{state}: {detail}" if detail else state + since
    return Check(name, level, found, "" if level == "ok" else SERVICES.get(name, f"docker compose logs {name}"))


def _disk(disk: dict[str, Any]) -> Check:
    free, total = disk["free"], disk["total"]
    level: Level = "fail" if free < FREE_FAIL else "warn" if free < FREE_WARN else "ok"
    way_out = "" if level == "ok" else "delete exports and checkpoints that are not needed"
    return Check("disk", level, f"{show.size(free)} free of {show.size(total)}", way_out)


def _base_model(name: str, cached: bool) -> Check:
    if cached:
        return Check("base model", "ok", f"{name} is in the Hugging Face cache")
    return Check("base model", "fail", f"{name} is not in the Hugging Face cache", f"tandem fetch {name}")


def _gpus(gpus: list[Any]) -> Check:
    names = [gpu if isinstance(gpu, str) else str(gpu.get("name")) for gpu in gpus]
    if not names:
        return Check("gpus", "warn", "none", "fine with the tiny model; gpt-oss-20b needs 16 GB of GPU memory")
    return Check("gpus", "ok", ", ".join(names))


def _tool(name: str, found: str | None, lacking: Level, way_out: str) -> Check:
    return Check(name, "ok", found) if found else Check(name, lacking, "not found", way_out)


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
