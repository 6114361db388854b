"""tandem train, fetch, jobs, logs and recipes: what is asked of the trainer and how it goes."""

import time
from typing import Annotated, Any

import typer
from rich.syntax import Syntax

from services.cli import follow, show, speeds, story
from services.cli.client import Client, part
from services.cli.context import Follow, Json, Limit, Set, api, overrides

app = typer.Typer(help="The jobs: list, show, stop, cancel, resume, clone, queue, move.", rich_markup_mode=None)
Id = Annotated[str, typer.Argument(metavar="ID", help="From `tandem jobs`.")]
MOST = 1000
LOOK_AGAIN = 1.0  # seconds between two looks at a growing log
ENDED = ("succeeded", "failed", "cancelled")


def train(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="name@version, or a name for its newest version.")],
    recipe: Annotated[
        str | None, typer.Option(help="`tandem recipes` lists them; by default one for the data set's kind of rows.")
    ] = None,
    set_: Set = None,
    name: Annotated[str | None, typer.Option(help="Name of the adapter; otherwise the data set's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and queue nothing.")] = False,
    follow_: Follow = True,
    json: Json = False,
) -> None:
    """Fine-tune an adapter on a data set."""
    client = api(ctx)
    job = {"kind": "train", "dataset": dataset, "recipe": recipe, "overrides": overrides(set_), "name": name}
    if dry_run:
        found = client.post("/runs/estimate", job)
        show.raw(found) if json else _estimate(found)
        return
    follow.started(client, client.post("/runs", job), follow_, json)


def fetch(
    ctx: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the Hugging Face hub.")],
    dataset: Annotated[bool, typer.Option("--dataset", help="It is a data set, not a model.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Hash every file of it in the cache instead.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Check it, and download what is broken again.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of the cache.")] = False,
    follow_: Follow = True,
    json: Json = False,
) -> None:
    """Download a model or a data set into the Hugging Face cache. Or check, repair or remove what is there."""
    actions = [name for name, asked in (("check", check), ("repair", repair), ("remove", remove)) if asked]
    if len(actions) > 1:
        raise typer.BadParameter("choose one of --check, --repair and --remove.")
    client = api(ctx)
    kind = "dataset" if dataset else "model"
    job = {"kind": "fetch", "repository": repo, "repository_type": kind, "revision": revision}
    job |= {"action": actions[0]} if actions else {}
    follow.started(client, client.post("/runs", job), follow_, json)


@app.callback(invoke_without_command=True)
def jobs(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")] = None,
    kind: Annotated[str | None, typer.Option(help="train, evaluate, export, fetch or benchmark.")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """List the jobs, the newest first."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/runs", limit, state=state, kind=kind)
    if json:
        show.raw(items)
        return
    show.table(
        ["!job", "!state", "of", "#step", "#loss", "!queued"],
        [
            (
                run["id"],
                show.state(run["state"]),
                _of(run),
                _steps(run),
                show.loss(run.get("loss")),
                show.age(run["created"]),
            )
            for run in items
        ],
        "There is no job yet. Start one with: tandem train DATASET" if not (state or kind) else "No job is like that.",
    )


@app.command("show")
def show_(ctx: typer.Context, run_id: Id, json: Json = False) -> None:
    """Show what was asked, how it stands and what came of it."""
    run = api(ctx).get(f"/runs/{part(run_id)}")
    if json:
        show.raw(run)
        return
    show.out.print(show.safe(run["id"]), style="bold")
    show.facts(
        {
            "state": show.state(run["state"]),
            "reason": run.get("reason"),
            "result": run.get("result"),
            "step": _steps(run) if run.get("step") else None,
            "loss": show.loss(run["loss"]) if run.get("loss") is not None else None,
            "took": show.between(run.get("started"), run.get("ended")) if run.get("started") else None,
            "queued": show.age(run["created"]),
            "attempt": run.get("attempt") or None,
            "cancelling": "asked to stop" if run.get("cancel_requested") and run["state"] not in ENDED else None,
            "checkpoints": ", ".join(
                f"step {c['step']} ({show.size(c['bytes'])})" for c in run.get("checkpoints") or []
            ),
        }
    )
    for title, values in _sections(run).items():
        if values:
            show.out.print(f"\n{title}", style="dim")
            show.facts(show.flat(values))
    if run.get("speed"):
        show.out.print()
        show.out.print(speeds.table(run["speed"]))


@app.command()
def cancel(ctx: typer.Context, run_id: Id) -> None:
    """Ask a job to stop. A training finishes its step and writes a checkpoint first."""
    run = api(ctx).post(f"/runs/{part(run_id)}/cancel")
    said = "is cancelled" if run["state"] == "cancelled" else "stops after its current step"
    show.out.print(f"{run_id} {said}. Go on with: tandem jobs resume {run_id}")


@app.command()
def stop(ctx: typer.Context, run_id: Id) -> None:
    """End a training early. It publishes the best that it has."""
    api(ctx).post(f"/runs/{part(run_id)}/stop")
    show.out.print(f"{run_id} ends after its current step and publishes the best that it has.")


@app.command()
def queue(ctx: typer.Context, json: Json = False) -> None:
    """List the jobs that wait, the next to start first."""
    items = api(ctx).listing("/queue", MOST)
    if json:
        show.raw(items)
        return
    show.table(
        ["#", "!job", "of", "!queued"],
        [(i["position"], i["id"], _of(i), show.age(i["queued"])) for i in items],
        "Nothing waits.",
    )


@app.command()
def move(
    ctx: typer.Context, run_id: Id, to: Annotated[int, typer.Argument(min=1, help="Its new place; 1 starts next.")] = 1
) -> None:
    """Put a waiting job at another place of the queue, by default the first."""
    items = api(ctx).post(f"/queue/{part(run_id)}/move", {"to": to})["items"]
    show.out.print(
        f"{run_id} is number {next((i['position'] for i in items if i['id'] == run_id), to)} of {len(items)}."
    )


@app.command()
def resume(ctx: typer.Context, run_id: Id, follow_: Follow = False, json: Json = False) -> None:
    """Go on with a failed or cancelled job. It starts from its last checkpoint."""
    client = api(ctx)
    follow.started(client, client.post(f"/runs/{part(run_id)}/resume"), follow_, json)


@app.command()
def clone(ctx: typer.Context, run_id: Id, set_: Set = None, follow_: Follow = False, json: Json = False) -> None:
    """Queue the same job again. --set gives it other values."""
    client = api(ctx)
    run = client.post(f"/runs/{part(run_id)}/clone", {"overrides": overrides(set_)})
    follow.started(client, run, follow_, json)


def logs(
    ctx: typer.Context,
    run_id: Id,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="What the process printed, instead of the story.")] = False,
) -> None:
    """Show what a job tells. With --raw, what its process printed."""
    client = api(ctx)
    if raw:
        _raw_log(client, run_id, follow_)
        return
    if follow_ and show.out.is_terminal:
        follow.watch(client, run_id)
        return
    events = client.events(run_id, lost=lambda text: show.err.print(text)) if follow_ else _events(client, run_id)
    for event in events:
        text = story.point(event) if event["type"] == "metric" else story.line(event)
        if text:
            then = show.moment(event.get("time"))
            show.out.print(f"{then.astimezone():%H:%M:%S}  " if then else "", show.safe(text), sep="", soft_wrap=True)


def recipes(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Show this one with a comment on each value.")] = None,
    json: Json = False,
) -> None:
    """List the recipes, or show one."""
    client = api(ctx)
    if name:
        item = client.get(f"/recipes/{part(name)}")
        yaml = Syntax(item["yaml"], "yaml", background_color="default", word_wrap=True)
        show.raw(item) if json else show.out.print(yaml)
        return
    listed = client.get("/recipes")
    if json:
        show.raw(listed)
        return
    show.table(
        ["!recipe", "#steps", "#rank", "#length", "#rate", "about"],
        [(item["name"], *_figures(item["values"]), item["about"]) for item in listed["items"]],
        "There are no recipes.",
    )


def _figures(values: dict[str, Any]) -> tuple[str, ...]:
    steps = show.number(values["steps"]) if values.get("steps") else f"{values.get('epochs', 1):g} ep."
    return steps, str(values["lora_rank"]), show.number(values["max_length"]), f"{values['learning_rate']:g}"


def _steps(run: dict[str, Any]) -> str:
    return f"{run.get('step') or 0:,}/{run['steps']:,}" if run.get("steps") else "–"


def _of(run: dict[str, Any]) -> str | None:
    return (
        run.get("dataset") or run.get("adapter") or run.get("repository") or ", ".join(run.get("models") or []) or None
    )


def _sections(run: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    spec = run.get("spec") or {}
    recipe = {key: value for key, value in (spec.get("recipe") or {}).items() if value not in (None, "", [])}
    told = {name: run.get(name) for name in ("proof", "evaluation")}
    if not told["proof"]:  # which holds both
        told |= {name: run.get(name) for name in ("data", "trainable")}
    shown = {name: {k: v for k, v in values.items() if k != "time"} for name, values in told.items() if values}
    return {"job": {"kind": run["kind"], **(spec.get("job") or {})}, "recipe": recipe, **shown}


def _events(client: Client, run_id: str) -> Any:
    after = 0
    while True:
        page = client.get(f"/runs/{part(run_id)}/events", after=after)
        yield from page["items"]
        if not page["items"] or page["next"] == after:
            return
        after = page["next"]


def _raw_log(client: Client, run_id: str, follow_: bool) -> None:
    after = 0
    while True:
        ended = not follow_ or client.get(f"/runs/{part(run_id)}")["state"] in ENDED
        page = client.get(f"/runs/{part(run_id)}/log", after=after)
        print(show.safe(page["text"]) if show.out.is_terminal else page["text"], end="", flush=True)
        if page["next"] == after:
            if ended:
                return
            time.sleep(LOOK_AGAIN)
        after = page["next"]


def _estimate(found: dict[str, Any]) -> None:
    memory = found.get("memory")
    show.facts(
        {
            "steps": f"{found['steps']:,} of {found['tokens_per_step']:,.0f} tokens",
            "examples": f"{found['examples']:,}, each seen {found['epochs']:g} times",
            "time": f"{show.span(found['seconds'])} at {found['seconds_from']}"
            if found["seconds"]
            else f"not known: {found['seconds_from']}",
            "memory": f"{show.size(memory['total'])} of {show.size(found['memory_available'])}" if memory else None,
        }
    )
    for note in found["notes"]:
        show.out.print(f"Note: {show.safe(note)}")
