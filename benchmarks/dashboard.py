#!/usr/bin/env python3
"""First paint and weight of the pages with 2,000 runs, one of 100,000 events, against an empty data directory.

.venv/bin/python -m benchmarks.dashboard      writes benchmarks/results/dashboard.md; needs what `make test` installs
"""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
from playwright.sync_api import Browser, sync_playwright

from shared import auth, runs
from shared.recipes import resolve
from shared.schemas import Job
from shared.settings import Settings
from shared.store import Store
from tests.browser.conftest import FLAGS
from tests.conftest import environment, free_port

ROOT = Path(__file__).resolve().parents[1]
RUNS, EVENTS, ROUNDS = 2000, 100_000, 7
LONG = "train-20260101-000000-long"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
WEIGHT = "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).map(e => [e.name, e.encodedBodySize])"


def fill(store: Store) -> None:
    """2,000 runs in all states, and one whose curve is long."""
    recipe = resolve("tiny")
    states = ["succeeded"] * 6 + ["failed", "cancelled"]
    for i in range(RUNS - 1):
        job = Job(dataset=f"chats-{i % 40}@0", recipe="tiny", name=f"adapter-{i % 40}")
        run_id = f"train-2026{i % 12 + 1:02}{i % 28 + 1:02}-000000-{i:04x}"
        runs.create(store, run_id, "train", job, recipe)
        runs.update(store, run_id, state=states[i % 8], step=64, steps=64, loss=1 / (i + 1))
    runs.create(store, LONG, "train", Job(dataset="chats-1@0", recipe="tiny", name="long"), recipe)
    runs.update(store, LONG, state="succeeded", step=EVENTS, steps=EVENTS, loss=0.1)
    with open(store.run(LONG) / "events.jsonl", "a") as file:
        for step in range(1, EVENTS + 1):
            event = {"time": "2026-01-01T00:00:00.000Z", "type": "metric", "step": step, "loss": 4 / math.sqrt(step)}
            file.write(json.dumps({**event, "learning_rate": 1e-4, "tokens_per_second": 2000.0}) + "\n")


def paint(browser: Browser, settings: Settings, store: Store, paths: list[str]) -> dict[str, tuple[float, int]]:
    """(median first contentful paint in ms, bytes as sent, the chart library left out) of each path."""
    port = free_port()
    command = ["gunicorn", "services.dashboard.wsgi:app", "-b", f"127.0.0.1:{port}", "-k", "gthread", "--threads", "64"]
    server = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment(settings),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    found = {}
    try:
        url = f"http://127.0.0.1:{port}"
        while not _up(url):
            time.sleep(0.1)
        for path in paths:
            times = []
            for _ in range(ROUNDS):
                context = browser.new_context(base_url=url, viewport={"width": 1440, "height": 900})  # no cache
                context.request.get(f"/sign-in?token={auth.new_sign_in(store)}")
                page = context.new_page()
                page.goto(path, wait_until="load")
                while not (painted := page.evaluate(PAINT)):
                    page.wait_for_timeout(20)
                times.append(painted)
                weight = sum(size for name, size in page.evaluate(WEIGHT) if "uPlot" not in name)
                context.close()
            found[path] = (statistics.median(times), weight)
    finally:
        server.terminate()
        server.wait(20)
    return found


def _up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.HTTPError:
        return False


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        results = []
        for name in ("empty", "full"):
            settings = Settings(
                data=Path(folder) / name, hf_home=Path(folder) / "hf", redis_url="redis://127.0.0.1:1/0",
                inference_url="http://127.0.0.1:1", llama_url="http://127.0.0.1:1",
            )  # fmt: skip
            store = Store(settings.data)
            store.runs().mkdir(parents=True)
            paths = ["/", "/datasets", "/runs", "/runs?sort=loss", "/runs/new", "/adapters", "/exports", "/queue", "/system",
                     "/keys", "/chat"]  # fmt: skip
            if name == "full":
                fill(store)
                paths.append(f"/runs/{LONG}")
            results.append(paint(browser, settings, store, paths))
        browser.close()
    empty, full = results
    processor = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0].strip("\t: ")
    lines = [
        "# Dashboard: first paint",
        "",
        "`python -m benchmarks.dashboard`, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor or platform.machine()}), headless",
        f"Chromium without a cache, straight to gunicorn, every other service down. Median of {ROUNDS} loads each.",
        f"*Full*: {RUNS:,} runs, one of them with {EVENTS:,} events. *Empty*: nothing. Bytes are as sent, uncompressed, uPlot left out.",
        "",
        "| page | empty | full | ratio | bytes |",
        "|---|---|---|---|---|",
    ]
    for path, (ms, weight) in full.items():
        base = empty.get(path)
        said = f"{base[0]:.0f} ms | {ms:.0f} ms | {ms / base[0]:.2f}" if base else f"– | {ms:.0f} ms | –"
        lines.append(f"| `{path.replace(LONG, '<the long one>')}` | {said} | {weight / 1000:.0f} kB |")
    (ROOT / "benchmarks" / "results" / "dashboard.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
