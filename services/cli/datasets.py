"""tandem datasets: add, look at, mix and import rows to learn from."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from services.cli import card, show
from services.cli.client import Failure, part
from services.cli.context import Json, Limit, api

app = typer.Typer(help="The data sets: list, add, show, mix, import, rm.", rich_markup_mode=None)
Ref = Annotated[str, typer.Argument(metavar="REF", help="name@version, or a name for its newest version.")]


@app.callback(invoke_without_command=True)
def datasets(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List the data sets, the newest first."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/datasets", limit)
    if json:
        show.raw(items)
        return
    show.table(
        ["!data set", "kind", "#rows", "#tokens", "#reasoning", "language", "#size", "!added"],
        [
            (
                item["reference"],
                item.get("kind"),
                show.number(item["rows"]["accepted"]),
                show.number((item.get("tokens") or {}).get("total")),
                show.share(item["reasoning"]["share"]),
                ", ".join(list(item["languages"])[:2]),
                show.size(item["bytes"]),
                show.age(item["created"]),
            )
            for item in items
        ],
        "There is no data set yet. Add one with: tandem datasets add FILE",
    )


@app.command()
def add(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, Parquet or plain text (.txt, .md), also compressed.")],
    name: Annotated[str | None, typer.Option(help="Otherwise made from the file's name.")] = None,
    licence: Annotated[str | None, typer.Option(help="The licence of the conversations.")] = None,
    json: Json = False,
) -> None:
    """Upload a file of conversations, of pairs of a chosen and a rejected answer, or of text. Every row is checked."""
    if not file.is_file():
        raise Failure(f"There is no file {str(file)!r}.")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=show.err, transient=True, disable=not show.err.is_terminal) as progress:
        task = progress.add_task("Uploading", total=file.stat().st_size)

        def sent(count: int) -> None:
            progress.advance(task, count)
            if progress.tasks[0].finished:
                progress.update(task, description="Checking rows")

        made = api(ctx).upload("/datasets", file, sent, filename=file.name, name=name, licence=licence)
    _made(made, json)


@app.command("show")
def show_(ctx: typer.Context, ref: Ref, json: Json = False) -> None:
    """Show what is in a data set."""
    item = api(ctx).get(f"/datasets/{part(ref)}")
    show.raw(item) if json else card.dataset(item)


@app.command()
def rejected(ctx: typer.Context, ref: Ref, limit: Limit = 50, json: Json = False) -> None:
    """Show the rejected rows, each with its reason."""
    items = api(ctx).listing(f"/datasets/{part(ref)}/rejected", limit)
    if json:
        show.raw(items)
        return
    show.table(
        ["#line", "reason", "text"],
        [(show.number(item["line"]), item["reason"], item["text"][:120]) for item in items],
        "No row was rejected.",
    )


@app.command()
def tokens(
    ctx: typer.Context,
    ref: Ref,
    row: Annotated[int, typer.Option(min=0, help="Which row.")] = 0,
    policy: Annotated[
        str | None, typer.Option(help="What of a conversation is learned: analysis+final, final or last_turn.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut after so many tokens, as a recipe does.")] = None,
    json: Json = False,
) -> None:
    """Show the tokens of a row. Those that a model learns from stand out."""
    made = api(ctx).get(f"/datasets/{part(ref)}/tokens", row=row, policy=policy, max_length=max_length)
    show.raw(made) if json else card.tokens(made)


@app.command()
def mix(
    ctx: typer.Context,
    reasoning: Annotated[str, typer.Argument(metavar="A", help="The data set with reasoning.")],
    direct: Annotated[str, typer.Argument(metavar="B", help="The data set of direct answers.")],
    name: Annotated[str, typer.Option(help="Name of the mix.")],
    share: Annotated[float, typer.Option(help="Share of the rows that come from A.")] = 0.75,
    total: Annotated[int | None, typer.Option(help="Rows of the mix; otherwise as many as both permit.")] = None,
    seed: Annotated[int, typer.Option(help="Decides which rows are taken.")] = 0,
    json: Json = False,
) -> None:
    """Make one data set of two. --share gives the proportion."""
    body = {"reasoning": reasoning, "direct": direct, "share": share, "total": total, "seed": seed, "name": name}
    _made(api(ctx).post("/datasets/mix", body), json)


@app.command("import")
def import_(
    ctx: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A data set of the Hugging Face hub.")],
    split: str = "train",
    config: Annotated[str | None, typer.Option(help="The configuration, where there are several.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    name: Annotated[str | None, typer.Option(help="Otherwise made from the repository's.")] = None,
    json: Json = False,
) -> None:
    """Make a data set of one from the hub. `tandem fetch --dataset REPO` brings it first."""
    body = {"repository": repo, "split": split, "config": config, "revision": revision, "name": name}
    _made(api(ctx).post("/datasets/import", body), json)


def _made(item: dict[str, Any], json: bool) -> None:
    if json:
        show.raw(item)
        return
    card.dataset(item)
    show.out.print(f"\nTrain on it with: tandem train {item['reference']}")


@app.command()
def rm(ctx: typer.Context, ref: Ref) -> None:
    """Delete a data set that no queued or running job uses."""
    api(ctx).delete(f"/datasets/{part(ref)}")
    show.out.print(f"{ref} is deleted.")
