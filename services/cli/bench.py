"""tandem bench: how fast do models answer?"""

from typing import Annotated, Any

import typer

from services.cli import follow, show, speeds
from services.cli.client import Failure, part
from services.cli.context import Follow, Json, api


def bench(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Base, adapters, aliases, exports. Otherwise the base, the adapter behind production, and the export that "
            "is served now.",
        ),
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N,…", help="Requests at a time; 1,4,16 unless said otherwise.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens of each answer, 128 unless said otherwise.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Tokens of each prompt, 128 unless said otherwise.")] = None,
    follow_: Follow = True,
    json: Json = False,
) -> None:
    """Measure time to first token and tokens a second. Loading a model is not in the figures. With --json it prints what
    was measured, once that is all there."""
    client = api(ctx)
    asked = {"kind": "benchmark", "models": models or None, "concurrency": _numbers(concurrency)}
    run = client.post("/runs", {**asked, "tokens": tokens, "prompt_tokens": prompt_tokens})
    if not json:
        follow.started(client, run, follow_)
        if follow_:
            _summary(client.get(f"/runs/{part(run['id'])}"))
        return
    if follow_:
        for _ in client.events(run["id"]):
            pass
        run = client.get(f"/runs/{part(run['id'])}")
    show.raw(run)


def _summary(run: dict[str, Any]) -> None:
    if not run["speed"]:
        return
    asked = run["spec"]["job"]
    show.out.print(f"\nPrompts of {asked['prompt_tokens']:,} tokens, answers of {asked['tokens']:,}.")
    if not show.out.is_terminal:  # where it is one, the table that filled stands above
        show.out.print(speeds.table(run["speed"]))
    for row in {row["model"]: row for row in run["speed"] if row["loading"] is not None}.values():
        ready = f"{row['model']} began its first answer after {speeds.seconds(row['loading'])}, which is in no figure."
        show.out.print(show.safe(ready), style="dim")


def _numbers(text: str | None) -> list[int] | None:
    """ "1,4,16" as numbers. Raises Failure."""
    try:
        return None if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise Failure(f"--concurrency {text!r} is no list of numbers, as in --concurrency 1,4,16.") from None
