"""Watching a run: a live display in a terminal, plain lines elsewhere, and a sentence for how it ended."""

from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.cli import show, speeds
from services.cli.client import Client, Failure, part
from services.cli.story import Story

NEXT = {
    "train": "Talk to it: tandem chat --model {result}\nServe it as the default: tandem alias set production {result}",
    "export": "Serve it: tandem alias set gguf {result}",
}


def started(client: Client, run: dict[str, Any], follow: bool, json: bool = False) -> None:
    """Say that a run was queued, and watch it if that was asked for."""
    if json:
        show.raw(run)
        return
    show.out.print(f"Job {run['id']} is {run['state']}.")
    if follow:
        watch(client, run["id"])
        return
    show.out.print(f"Watch it with: tandem logs {run['id']} --follow")


def watch(client: Client, run_id: str) -> None:
    """Watch a run until it ends; Ctrl-C detaches and leaves it running. Raises Failure if it did not succeed."""
    run = client.get(f"/runs/{part(run_id)}")
    told = Story(state=run["state"], steps=run.get("steps"))
    try:
        (_live if show.out.is_terminal else _lines)(client, run_id, told)
    except KeyboardInterrupt:
        show.out.print(f"Detached; {run_id} goes on.")
        show.out.print(f"Watch it again: tandem logs {run_id} --follow\nStop it: tandem jobs cancel {run_id}")
        return
    ended(client.get(f"/runs/{part(run_id)}"))


def ended(run: dict[str, Any]) -> None:
    """Say how a run ended and what to do next. Raises Failure unless it succeeded."""
    took = show.between(run.get("started"), run.get("ended"))
    if run["state"] == "succeeded":
        result = run.get("result")
        show.out.print(
            f"{run['id']} succeeded in {took}" + (f": {show.safe(result)}" if result else "."), style="green"
        )
        if result and run["kind"] in NEXT:
            show.out.print(NEXT[run["kind"]].format(result=show.safe(result)))
        return
    reason = run.get("reason") or "no reason was recorded."
    way_out = f"See `tandem logs {run['id']} --raw`, then `tandem jobs resume {run['id']}`."
    raise Failure(f"{run['id']} {run['state']}: {reason}\n{way_out}")


def _lines(client: Client, run_id: str, told: Story) -> None:
    for event in client.events(run_id, lost=lambda sentence: show.err.print(sentence)):
        text = told.take(event) or (told.progress() if event["type"] == "metric" else None)
        if text:
            show.out.print(show.safe(text))


def _live(client: Client, run_id: str, told: Story) -> None:
    trouble = ""

    def lost(sentence: str) -> None:
        nonlocal trouble
        trouble = sentence

    with Live(get_renderable=lambda: _display(run_id, told, trouble), console=show.out, refresh_per_second=4) as live:
        for event in client.events(run_id, lost=lost):
            trouble = ""
            if told.steps is None and event["type"] == "metric":
                told.steps = client.get(f"/runs/{part(run_id)}").get("steps")
            if (text := told.take(event)) and event["type"] not in ("status", "speed"):
                live.console.print(show.safe(text), style="yellow" if event["type"] in ("warning", "error") else "dim")


def _display(run_id: str, told: Story, trouble: str) -> Group:
    head = Text.assemble((run_id, "bold"), "  ", show.state(told.state))
    if told.state == "queued":
        head.append("  waits for the trainer", style="dim")
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    left = told.left()
    steps = f"{told.step:,} of {told.steps:,} steps" if told.steps else f"step {told.step:,}"
    waiting = not told.steps and told.state == "running"
    row.add_row(
        ProgressBar(total=told.steps or 1, completed=told.step if told.steps else 0, pulse=waiting),
        steps + (f" · {show.span(left)} left" if left is not None and told.state == "running" else ""),
    )
    below = speeds.table(told.rows) if told.rows else Text(told.figures() or " ")
    return Group(head, row, below, *([Text(trouble, style="yellow")] if trouble else []))
