"""tandem adapters, evaluate, export and exports: what has been learned and the files made of it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from services.cli import card, follow, show
from services.cli.client import part
from services.cli.context import Follow, Json, Limit, api
from shared.schemas import ENCODINGS

app = typer.Typer(help="The adapters: list, show, rm.", rich_markup_mode=None)
exports_app = typer.Typer(help="The exports: list, show, download, rm.", rich_markup_mode=None)
File = Annotated[str, typer.Argument(metavar="FILE", help="Name of the export, with or without .gguf.")]
Ref = Annotated[str, typer.Argument(metavar="ADAPTER", help="name@version, or an alias.")]


@app.callback(invoke_without_command=True)
def adapters(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List the adapters, the newest first."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/adapters", limit)
    if json:
        show.raw(items)
        return
    show.table(
        ["!adapter", "#loss", "#validation", "data set", "aliases", "!made"],
        [
            (
                item["reference"],
                f"{show.loss(item['loss_first'])} → {show.loss(item['loss_last'])}",
                show.loss(item.get("validation_loss")),
                item["dataset"],
                card.names(item.get("aliases")),
                show.age(item["created"]),
            )
            for item in items
        ],
        "There is no adapter yet. Train one with: tandem train DATASET",
    )


@app.command("show")
def show_(ctx: typer.Context, ref: Annotated[str, typer.Argument(metavar="REF")], json: Json = False) -> None:
    """Show where an adapter comes from and what was proven of it."""
    item = api(ctx).get(f"/adapters/{part(ref)}")
    show.raw(item) if json else card.adapter(item)


@app.command()
def rm(ctx: typer.Context, ref: Annotated[str, typer.Argument(metavar="REF")]) -> None:
    """Delete an adapter that no alias points at. Its version is not given again."""
    api(ctx).delete(f"/adapters/{part(ref)}")
    show.out.print(f"{ref} is deleted.")


def evaluate(
    ctx: typer.Context,
    adapter: Ref,
    dataset: Annotated[str | None, typer.Option(help="Otherwise the one it was trained on.")] = None,
    follow_: Follow = True,
    json: Json = False,
) -> None:
    """Compare an adapter with its base model. The validation rows of a data set are what both answer."""
    client = api(ctx)
    run = client.post("/runs", {"kind": "evaluate", "adapter": adapter, "dataset": dataset})
    follow.started(client, run, follow_, json)
    if follow_ and not json:
        show.out.print(f"The figures: tandem jobs show {run['id']}")


def export(
    ctx: typer.Context,
    adapter: Ref,
    encoding: Annotated[str, typer.Option(help=f"One of {', '.join(ENCODINGS)}.")] = "MXFP4",
    follow_: Follow = False,
    json: Json = False,
) -> None:
    """Make a GGUF file of an adapter. LoRA is the adapter alone for llama-server --lora, merged a folder of 16-bit weights."""
    client = api(ctx)
    run = client.post("/runs", {"kind": "export", "adapter": adapter, "encoding": encoding})
    follow.started(client, run, follow_, json)


@exports_app.callback(invoke_without_command=True)
def exports(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List the exports, the newest first."""
    if ctx.invoked_subcommand:
        return
    items = api(ctx).listing("/exports", limit)
    if json:
        show.raw(items)
        return
    show.table(
        ["file", "!adapter", "!encoding", "#size", "#bits/weight", "#agrees", "#KL", "!made"],
        [
            (
                item["file"],
                item["adapter"],
                item["encoding"],
                show.size(item["bytes"]),
                show.number(item["bits_per_weight"], 2),
                show.share(item["parity"].get("top1")),
                show.number(item["parity"].get("kl"), 4),
                show.age(item["created"]),
            )
            for item in items
        ],
        "There is no export yet. Make one with: tandem export ADAPTER",
    )


@exports_app.command("show")
def show_export(ctx: typer.Context, file: File, json: Json = False) -> None:
    """Show what an export is and how well it agrees with its adapter."""
    item = api(ctx).get(f"/exports/{part(file)}")
    show.raw(item) if json else card.export(item)


@exports_app.command()
def download(
    ctx: typer.Context,
    file: File,
    to: Annotated[Path | None, typer.Option(help="Where to put it; otherwise here, under its own name.")] = None,
) -> None:
    """Download a GGUF file. A part that is there already is gone on from."""
    client = api(ctx)
    card_ = client.get(f"/exports/{part(file)}")
    target = to or Path(card_["file"])
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), console=show.err) as progress:
        task = progress.add_task(target.name, total=card_["bytes"])
        client.download(
            f"/exports/{part(card_['file'])}/download", target, lambda done: progress.update(task, completed=done)
        )
    show.out.print(f"{target} is whole ({show.size(card_['bytes'])}).")


@exports_app.command("rm")
def rm_export(ctx: typer.Context, file: File) -> None:
    """Delete an export that no alias points at. It can be made again from its adapter."""
    api(ctx).delete(f"/exports/{part(file)}")
    show.out.print(f"{file} is deleted.")
