"""tandem sweep: train again and again with other values, and keep the best."""

import time
from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.client import Client, Failure, part
from services.cli.context import Follow, Json, Limit, Set, api, overrides
from services.cli.jobs import ENDED

app = typer.Typer(help="Sweeps: start, list, show, follow, cancel.", rich_markup_mode=None)
Id = Annotated[str, typer.Argument(metavar="ID", help="From `tandem sweep`.")]
LOOK_AGAIN = 2.0  # seconds between two looks at a sweep


@app.callback(invoke_without_command=True)
def sweeps(ctx: typer.Context, limit: Limit = 20, json: Json = False) -> None:
    """List the sweeps, the newest first."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/sweeps", limit)
    if json:
        show.raw(items)
        return
    show.table(
        ["!sweep", "!state", "of", "searched", "#trials", "#best loss", "!asked"],
        [
            (
                item["id"],
                show.state(item["state"]),
                item["dataset"],
                ", ".join(item["searched"]),
                f"{item['done']}/{item['asked']}",
                show.loss(_loss(item["best"])),
                show.age(item["created"]),
            )
            for item in items
        ],
        "There is no sweep yet. Start one with: tandem sweep start DATASET",
    )


@app.command()
def start(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="name@version, or a name for its newest version.")],
    recipe: Annotated[
        str | None, typer.Option(help="`tandem recipes` lists them; by default one for the data set's kind of rows.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=CHOICE]",
            help="A value to search: learning_rate=1e-5..5e-4, lora_rank=8,16,32, or its name alone for what is usual; "
            "repeatable. Without any: learning_rate and lora_rank.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Training runs, one after another.")] = 12,
    set_: Set = None,
    name: Annotated[str | None, typer.Option(help="Name of the adapter; otherwise the data set's.")] = None,
    follow_: Follow = True,
    json: Json = False,
) -> None:
    """Search over a recipe's values; the adapter of the best trial is kept."""
    client = api(ctx)
    chosen = {key.strip(): choice.strip() for key, _, choice in (pair.partition("=") for pair in search or [])}
    body = {"dataset": dataset, "recipe": recipe, "overrides": overrides(set_), "name": name}
    sweep = client.post("/sweeps", {**body, "search": chosen, "trials": trials})
    if json:
        show.raw(sweep)
        return
    show.out.print(f"Sweep {sweep['id']} searches {', '.join(sweep['searched'])} in {sweep['asked']} trials.")
    if follow_:
        _watch(client, sweep["id"])
        return
    show.out.print(f"Watch it with: tandem sweep follow {sweep['id']}")


@app.command("show")
def show_(ctx: typer.Context, sweep_id: Id, json: Json = False) -> None:
    """Show the trials of a sweep side by side, and which is the best."""
    sweep = api(ctx).get(f"/sweeps/{part(sweep_id)}")
    if json:
        show.raw(sweep)
        return
    show.out.print(show.safe(sweep["id"]), style="bold")
    importances = ", ".join(f"{name} {show.share(share)}" for name, share in sweep["importances"].items())
    show.facts(
        {
            "state": show.state(sweep["state"]),
            "reason": sweep["reason"],
            "data set": sweep["dataset"],
            "recipe": sweep["recipe_name"],
            "trials": f"{sweep['done']} of {sweep['asked']}, {sweep['pruned']} of them given up early",
            "best": _best(sweep) if sweep["best"] else None,
            "what decides": importances,
        }
    )
    show.table(
        ["#trial", "!state", "#validation", *(f"#{name}" for name in sweep["searched"]), "#steps", "job"],
        [_row(trial, sweep["searched"]) for trial in sweep["trials"]],
        "No trial has begun.",
    )


@app.command("follow")
def follow_(ctx: typer.Context, sweep_id: Id) -> None:
    """Watch a sweep until it ends; Ctrl-C only stops watching."""
    _watch(api(ctx), sweep_id)


@app.command()
def cancel(ctx: typer.Context, sweep_id: Id) -> None:
    """End a sweep. The trial in hand is cancelled, the best so far is kept."""
    api(ctx).post(f"/sweeps/{part(sweep_id)}/cancel")
    show.out.print(f"{sweep_id} ends; the best so far is kept.")


def _watch(client: Client, sweep_id: str) -> None:
    """Tell each trial once it has ended. Raises Failure if the sweep does not succeed."""
    told: set[int] = set()
    try:
        while True:
            sweep = client.get(f"/sweeps/{part(sweep_id)}")
            for trial in sweep["trials"]:
                if trial["state"] in ENDED and trial["number"] not in told:
                    told.add(trial["number"])
                    show.out.print(show.safe(_line(trial, sweep["asked"])))
            if sweep["state"] in ENDED:
                break
            time.sleep(LOOK_AGAIN)
    except KeyboardInterrupt:
        show.out.print(f"Detached; {sweep_id} goes on.\nWatch it again: tandem sweep follow {sweep_id}")
        return
    if sweep["state"] != "succeeded":
        raise Failure(f"{sweep_id} {sweep['state']}: {sweep['reason']}")
    show.out.print(f"{sweep_id} succeeded. {_best(sweep)}", style="green")
    if result := sweep["best"]["result"]:
        show.out.print(f"Talk to it: tandem chat --model {show.safe(result)}")


def _line(trial: dict[str, Any], asked: int) -> str:
    came = (
        f"validation loss {show.loss(trial['validation_loss'])}" if trial["state"] == "succeeded" else trial["reason"]
    )
    return f"trial {trial['number']} of {asked} · {_values(trial)} · {came or trial['state']}"


def _best(sweep: dict[str, Any]) -> str:
    best = sweep["best"]
    return f"Trial {best['number']} is the best: validation loss {show.loss(best['validation_loss'])} with {_values(best)}."


def _values(trial: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in trial["values"].items())


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _loss(trial: dict[str, Any] | None) -> float | None:
    return trial["validation_loss"] if trial else None


def _row(trial: dict[str, Any], searched: list[str]) -> tuple[Any, ...]:
    steps = f"{trial['step']:,}/{trial['steps']:,}" if trial["steps"] else "–"
    state = "pruned" if trial["pruned"] else trial["state"]
    values = [_value(trial["values"][name]) for name in searched]
    return trial["number"], show.state(state), show.loss(_loss(trial)), *values, steps, trial["run"]
