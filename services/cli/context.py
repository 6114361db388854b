"""What every command shares: the client of the Tandem that the options name, and the options themselves."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from services.cli import keyfile
from services.cli.client import Client, Failure

DEFAULT_URL = "http://127.0.0.1:8080"

Json = Annotated[bool, typer.Option("--json", help="Print raw JSON.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Replace a value of the recipe; repeatable.")
]
Follow = Annotated[
    bool, typer.Option("--follow/--no-follow", help="Watch it until it ends; Ctrl-C only stops watching.")
]
Limit = Annotated[int, typer.Option(min=1, help="How many to show, the newest first.")]


@dataclass(frozen=True)
class Connection:
    """Where Tandem is, and with which key."""

    url: str = DEFAULT_URL
    key: str | None = None


def connection(ctx: typer.Context) -> Connection:
    """The connection that the global options gave."""
    return ctx.find_object(Connection) or Connection()


def api(ctx: typer.Context) -> Client:
    """A client with the key of the options, of the environment, or of the key file."""
    given = connection(ctx)
    return Client(given.url, given.key or keyfile.find())


def overrides(pairs: list[str] | None) -> dict[str, Any]:
    """["lora_rank=8", "scheduler=cosine"] -> values, each read as JSON where it is JSON and as text where not.

    Raises Failure for a pair without "="."""
    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise Failure(
                f"--set {pair!r} is no NAME=VALUE, as in --set lora_rank=8. `tandem recipes` lists the names."
            )
        values[name.strip()] = _value(value.strip())
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
