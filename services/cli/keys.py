"""tandem login, and tandem keys: who may in."""

from typing import Annotated

import typer

from services.cli import keyfile, show
from services.cli.client import Client, Unreachable, part
from services.cli.context import Json, api, connection

MOST = 1000
app = typer.Typer(help="The API keys: list, create, revoke.", rich_markup_mode=None)


def login(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Asked for without an echo when left out.")] = "",
) -> None:
    """Store an API key. Tandem is asked whether it is valid."""
    key = key.strip() or typer.prompt("API key", hide_input=True).strip()
    url = connection(ctx).url
    try:
        Client(url, key).get("/system")
        checked = f"{url} accepts the key."
    except Unreachable as failure:
        checked = f"It could not be checked. {failure}"
    show.out.print(f"{checked} It is stored in {keyfile.store(key)}.")


@app.callback(invoke_without_command=True)
def keys(ctx: typer.Context, json: Json = False) -> None:
    """List the keys; the keys themselves are shown once, when they are made."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/keys", MOST)
    if json:
        show.raw(items)
        return
    show.table(
        ["!id", "name", "!made", "!last used"],
        [
            (i["id"], i["name"], show.age(i["created"]), show.age(i["last_used"]) if i.get("last_used") else "never")
            for i in items
        ],
        "There is no key yet. Make one with: tandem keys create NAME",
    )


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    json: Json = False,
) -> None:
    """Make a key and show it, this once."""
    made = api(ctx).post("/keys", {"name": name})
    if json:
        show.raw(made)
        return
    print(made["key"])
    show.err.print("The key is shown this once. Store it with: tandem login KEY", style="dim")


@app.command()
def revoke(
    ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID", help="From `tandem keys`.")]
) -> None:
    """Revoke a key: the next request with it is refused."""
    api(ctx).delete(f"/keys/{part(key_id)}")
    show.out.print(f"Key {key_id} is revoked.")
