"""tandem alias: movable names that point at an adapter or an export."""

from typing import Annotated

import typer

from services.cli import show
from services.cli.client import Failure, part
from services.cli.context import Json, api

MOST = 1000
app = typer.Typer(help="The aliases, such as production: list, set, undo, rm, history.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The alias, such as production.")]


@app.callback(invoke_without_command=True)
def aliases(ctx: typer.Context, json: Json = False) -> None:
    """List the aliases and what they point at."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/aliases", MOST)
    if json:
        show.raw(items)
        return
    show.table(
        ["!alias", "points at", "!since", "before"],
        [(i["alias"], i["target"], show.age(_last(i).get("time")), _last(i).get("before")) for i in items],
        "There is no alias yet. Make one with: tandem alias set production NAME@VERSION",
    )


@app.command("set")
def set_(
    ctx: typer.Context,
    name: Name,
    target: Annotated[str, typer.Argument(help="An adapter name@version, or the file of an export.")],
) -> None:
    """Point an alias at an adapter or an export. The next request is answered by it."""
    moved = api(ctx).put(f"/aliases/{part(name)}", {"target": target})
    before = moved.get("before")
    show.out.print(f"{name} now points at {moved['target']}" + (f"; before, at {before}." if before else "."))


@app.command()
def undo(ctx: typer.Context, name: Name) -> None:
    """Point an alias back at what it was."""
    moved = api(ctx).post(f"/aliases/{part(name)}/undo") or {}
    target = moved.get("target")
    show.out.print(
        f"{name} points at {target} again." if target else f"{name} is gone again: it pointed at nothing before."
    )


@app.command()
def rm(ctx: typer.Context, name: Name) -> None:
    """Remove an alias. What it points at stays."""
    api(ctx).delete(f"/aliases/{part(name)}")
    show.out.print(f"{name} is removed. Bring it back with: tandem alias undo {name}")


@app.command()
def history(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Show every change of an alias, also of one that was removed, the newest first."""
    items = api(ctx).listing("/aliases", MOST, removed=True)
    found = next((item for item in items if item["alias"] == name), None)
    if found is None:
        known = ", ".join(item["alias"] for item in items) or "none"
        raise Failure(f"There is no alias {name!r}. There are: {known}.")
    changes = found["history"][::-1]
    if json:
        show.raw(changes)
        return
    show.table(
        ["!when", "points at", "before"],
        [(show.age(change["time"]), change.get("target") or "removed", change.get("before")) for change in changes],
        f"{name} has not been moved yet.",
    )


def _last(item: dict) -> dict:
    return item["history"][-1] if item.get("history") else {}
