"""tandem: fine-tune gpt-oss-20b on your conversations and talk to what it has learned.

python -m services.cli --help
"""

import importlib
import importlib.util
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from services.cli import adapters, aliases, bench, datasets, doctor, jobs, keys, sweeps, talk
from services.cli.client import Failure
from services.cli.context import DEFAULT_URL, Connection
from services.cli.show import err, safe

DEMO = "services.cli.demo"  # starts services out of the checkout; a client that is installed alone has none


class Commands(TyperGroup):
    """The root: prints a Failure as its sentence and exits with 1, and imports the demo only when it is asked for."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            err.print(safe(failure), style="red", soft_wrap=True)
            sys.exit(1)

    def list_commands(self, ctx: Any) -> list[str]:
        demo = ["demo"] if importlib.util.find_spec(DEMO) else []
        return [*demo, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name != "demo" or not importlib.util.find_spec(DEMO):
            return super().get_command(ctx, cmd_name)
        alone = typer.Typer(add_completion=False)
        alone.command("demo")(importlib.import_module(DEMO).demo)
        return typer.main.get_command(alone)


app = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_show_locals=False)


@app.callback()
def connect(
    ctx: typer.Context,
    url: Annotated[str, typer.Option(envvar="TANDEM_URL", help="Where Tandem answers.")] = DEFAULT_URL,
    key: Annotated[
        str | None, typer.Option(envvar="TANDEM_KEY", help="API key; otherwise ~/.config/tandem/key, then .local/key.")
    ] = None,
) -> None:
    """Fine-tune gpt-oss-20b on your conversations, and talk to what it has learned."""
    ctx.obj = Connection(url, key)


app.command()(doctor.doctor)
app.command()(keys.login)
app.add_typer(datasets.app, name="datasets")
app.command()(jobs.train)
app.add_typer(jobs.app, name="jobs")
app.add_typer(sweeps.app, name="sweep")
app.command()(jobs.logs)
app.command()(jobs.recipes)
app.command()(jobs.fetch)
app.command()(adapters.evaluate)
app.command()(bench.bench)
app.add_typer(adapters.app, name="adapters")
app.command()(adapters.export)
app.add_typer(adapters.exports_app, name="exports")
app.add_typer(aliases.app, name="alias")
app.command()(talk.ask)
app.command()(talk.chat)
app.add_typer(keys.app, name="keys")

if __name__ == "__main__":
    app(prog_name="tandem")
