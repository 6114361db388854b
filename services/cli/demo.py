"""The whole chain on one machine without a GPU: `tandem demo`. It talks to the stack as any person's script would."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.cli import stack as local
from services.cli.client import Client, Failure
from shared import auth
from shared.store import Store, free_bytes, write_atomic, write_json

ROOT = Path(__file__).resolve().parents[2]
BASE = "tandem/tiny-gpt-oss"
CONVERSATIONS = ROOT / "demo" / "conversations.jsonl"
QUESTIONS = (
    "When are you open?",
    "What does a new chain cost?",
    "Can I rent a bike from you?",
)
NEEDED_BYTES = 2 << 30
console = Console(highlight=False)


@dataclass
class Report:
    """What goes into `demo.json`."""

    dataset: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ok: bool = False

    @contextlib.contextmanager
    def stage(self, name: str, says: str) -> Iterator[None]:
        """Time a stage and say that it runs."""
        begin = time.monotonic()
        console.print(f"[bold]{says}[/bold]")
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)


def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="Stop the stack at the end.")] = False,
    port: Annotated[
        int, typer.Option(envvar="TANDEM_PORT", help="The public port; the five after it are used, too.")
    ] = 8080,
    folder: Annotated[Path, typer.Option(help="Where data, cache and logs are kept.")] = ROOT / ".local",
) -> None:
    """Fine-tune a tiny gpt-oss on a file of conversations, export it, and chat with it: no GPU, a few minutes."""
    begin = time.monotonic()
    check_disk(folder)
    report = Report()
    with report.stage("start", "Starting the stack and building the tiny base model"):
        stack = start(folder, port, report)
    with stack:
        client = Client(stack.url, key=local_key(stack.data, folder))
        try:
            chain(client, report)
        finally:
            report.seconds["total"] = round(time.monotonic() - begin, 1)
            write_json(folder / "demo.json", vars(report))
        show(report, folder)
        if not report.ok:
            raise Failure(
                f"The chain ran, but what it made does not prove itself; {folder / 'demo.json'} has the measurements."
            )
        if exit_:
            console.print("Stopping the stack.")
            return
        console.print(f"\nTandem runs at [bold]{stack.url}[/bold]. Sign in, once, with this link:\n")
        console.print(f"  {stack.url}/sign-in?token={auth.new_sign_in(Store(stack.data))}\n", soft_wrap=True)
        console.print("In another terminal: [bold].venv/bin/tandem chat[/bold]. Ctrl-C here stops everything.")
        wait_for_interrupt()


def check_disk(folder: Path) -> None:
    """Raises Failure if there is no room for what the demo writes."""
    folder.mkdir(parents=True, exist_ok=True)
    if free_bytes(folder) < NEEDED_BYTES:
        raise Failure(
            f"The demo writes about 2 GB under {folder}, and {free_bytes(folder) / 1e9:.1f} GB are free there. "
            "Make room, then try again."
        )


def start(folder: Path, port: int, report: Report) -> local.Stack:
    """The running stack, and the tiny base in its cache; the base is built while the services start."""
    stack = local.start(
        ROOT, port, log=lambda line: console.print(f"  {line}", style="dim"), folder=folder, base_model=BASE
    )
    try:
        begin = time.monotonic()
        builder = subprocess.Popen(
            [sys.executable, "-m", "services.trainer.tiny"],
            env=stack.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert builder.stdout is not None
        for line in builder.stdout:
            console.print(f"  {line.rstrip()}", style="dim", markup=False)
        if builder.wait() != 0:
            raise Failure(
                "The tiny base model could not be built. By hand: HF_HOME=.local/hf .venv/bin/python -m services.trainer.tiny"
            )
        report.seconds["base"] = round(time.monotonic() - begin, 1)
        stack.wait_healthy(180)
    except BaseException:
        stack.stop()
        raise
    return stack


def local_key(data: Path, folder: Path) -> str:
    """The API key of this checkout's own stack, made at the first start and kept where the CLI looks."""
    path = folder / "key"
    store = Store(data)
    if path.exists() and auth.check_key(store, path.read_text().strip()):
        return path.read_text().strip()
    key, _ = auth.create_key(store, "demo")
    write_atomic(path, key + "\n", mode=0o600)
    return key


def chain(client: Client, report: Report) -> None:
    """File to adapter to GGUF to answers, through the public API; fills `report`."""
    with report.stage("dataset", f"Reading {CONVERSATIONS.relative_to(ROOT)}"):
        report.dataset = client.upload(
            "/datasets", CONVERSATIONS, lambda _: None, filename=CONVERSATIONS.name, name="workshop"
        )
    with report.stage("train", "Training an adapter"):
        wanted = {"kind": "train", "dataset": report.dataset["reference"], "recipe": "tiny", "name": "workshop"}
        run = follow(client, client.post("/runs", wanted))
        report.adapter = client.get(f"/adapters/{run['result']}")
        report.train = training(client, run, report.adapter)
    with report.stage("export", "Exporting to GGUF and comparing it with the adapter"):
        run = follow(
            client, client.post("/runs", {"kind": "export", "adapter": report.adapter["reference"], "encoding": "F16"})
        )
        report.export = client.get(f"/exports/{run['result']}")
        client.put("/aliases/production", {"target": report.adapter["reference"]})
        client.put("/aliases/gguf", {"target": report.export["file"]})
    with report.stage("answers", "Asking base, adapter and GGUF"):
        report.answers = [ask_all(client, question, report) for question in QUESTIONS]
    report.ok = proven(report)


def follow(client: Client, run: dict[str, Any]) -> dict[str, Any]:
    """Show the run while it runs; its final state. Raises Failure with the reason if it did not succeed."""
    for event in client.events(run["id"]):
        if event["type"] == "log":
            console.print(f"  {event['text']}", style="dim", markup=False)
        speed = event.get("tokens_per_second") or 0
        if event["type"] == "metric" and "loss" in event and (event["step"] % 10 == 0 or event["step"] == 1):
            console.print(
                f"  step {event['step']:>3}  loss {event['loss']:.3f}  {speed:,.0f} tokens/s",
                style="dim",
            )
        if event["type"] == "metric" and "validation_loss" in event:
            console.print(f"            validation loss {event['validation_loss']:.3f}", style="dim")
    run = client.get(f"/runs/{run['id']}")
    if run["state"] != "succeeded":
        raise Failure(f"Run {run['id']} {run['state']}: {run.get('reason')}")
    return run


def training(client: Client, run: dict[str, Any], adapter: dict[str, Any]) -> dict[str, Any]:
    """What the table says of the training run."""
    page, offset, speeds = None, 0, []
    while page is None or (page["items"] and not page.get("ended")):
        page = client.get(f"/runs/{run['id']}/events", after=offset)
        speeds += [e["tokens_per_second"] for e in page["items"] if e.get("tokens_per_second")]
        if page["next"] == offset:
            break
        offset = page["next"]
    proof = adapter["proof"]
    return {
        "run": run["id"],
        "steps": adapter["steps"],
        "supervised_tokens": proof["data"]["train"]["supervised_tokens"],
        "loss_first": adapter["loss_first"],
        "loss_last": adapter["loss_last"],
        "validation_loss": adapter.get("validation_loss"),
        "tokens_per_second": round(sorted(speeds)[len(speeds) // 2], 1) if speeds else None,
    }


def ask_all(client: Client, question: str, report: Report) -> dict[str, Any]:
    """One question to base, adapter and GGUF, greedily."""
    models = {"base": BASE, "adapter": report.adapter["reference"], "gguf": report.export["file"]}
    return {"question": question, **{who: answer(client, model, question) for who, model in models.items()}}


def answer(client: Client, model: str, question: str) -> str:
    """The final text of a greedy answer; waits for a GGUF server that is just loading its file."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 120}
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.call("POST", "/chat/completions", prefix="/v1", json=body)["choices"][0]["message"]["content"]
        except Failure as failure:
            if failure.status != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def proven(report: Report) -> bool:
    """Did it learn, do base and adapter differ, do adapter and GGUF agree?"""
    return (
        report.train["loss_last"] < report.train["loss_first"] / 2
        and report.adapter["proof"]["norm_B"] > 0
        and all(a["base"] != a["adapter"] and a["adapter"] == a["gguf"] for a in report.answers)
    )


def show(report: Report, folder: Path) -> None:
    """The table that proves the chain."""
    d, t, a, e = report.dataset, report.train, report.adapter, report.export
    table = Table(title="What happened", title_justify="left", title_style="bold", show_header=False)
    rows = [
        ("data set", f"{d['reference']}: {d['rows']['read']} rows read, {d['rows']['rejected']} rejected"),
        ("supervised tokens", f"{t['supervised_tokens']:,}"),
        (
            "loss",
            f"{t['loss_first']:.3f} → {t['loss_last']:.3f} in {t['steps']} steps (validation {t['validation_loss']:.3f})",
        ),
        ("speed", f"{t['tokens_per_second']:,.0f} tokens/s"),
        ("adapter", f"{a['reference']}, norm of its B matrices {a['proof']['norm_B']:.2f}, {a['sha256'][:12]}"),
        (
            "export",
            f"{e['file']}, {e['bytes'] / 1e6:.1f} MB; against the adapter: "
            f"top-1 {e['parity']['top1']:.3f}, cosine {e['parity']['cosine']:.5f}",
        ),
        ("seconds", ", ".join(f"{name} {seconds:g}" for name, seconds in report.seconds.items())),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    answers = Table(title="Three questions", title_justify="left", title_style="bold", show_lines=True)
    for column in ("question", "base", "adapter", "GGUF"):
        answers.add_column(column, ratio=1, overflow="fold")
    for asked in report.answers:
        answers.add_row(asked["question"], asked["base"], asked["adapter"], asked["gguf"])
    console.print(answers)
    console.print(f"The same as JSON: {folder / 'demo.json'}", style="dim")


def wait_for_interrupt() -> None:
    """Sleep until Ctrl-C or SIGTERM."""
    done = threading.Event()
    with contextlib.suppress(KeyboardInterrupt):
        while not done.wait(3600):
            pass
    console.print("\nStopping the stack.")
