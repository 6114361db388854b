"""tandem ask and tandem chat: talk to a model."""

import sys
import time
from typing import Annotated

import typer

from services.cli.chat.answer import Answer
from services.cli.chat.loop import talk
from services.cli.chat.session import EFFORTS, Session
from services.cli.client import Client, Failure
from services.cli.context import api
from services.cli.show import err, safe

Effort = Annotated[str, typer.Option(help="How much the model thinks: low, medium or high.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="The longest answer, thinking included.")]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")]
System = Annotated[str | None, typer.Option(help="Instructions for the model.")]


def ask(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A base model, an adapter name@version, an alias or an export.")],
    question: Annotated[str, typer.Argument(help="What is piped in is added to it.")] = "",
    effort: Effort = "medium",
    show_thinking: Annotated[
        bool, typer.Option("--show-thinking", help="Print the thinking as well, to stderr.")
    ] = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 1.0,
    system: System = None,
) -> None:
    """Ask one question. The answer streams to stdout and nothing else does."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    text = "\n\n".join(filter(None, [question, piped]))
    if not text:
        raise Failure('There is no question: tandem ask MODEL "question"')
    session = Session(model, _checked(effort), temperature, max_tokens)
    session.start(system)
    answer = Answer(time.monotonic())
    for chunk in api(ctx).chat(session.ask(text)):
        thought, said = answer.take(chunk, time.monotonic())
        if show_thinking and thought:
            err.print(safe(thought), style="dim", end="", soft_wrap=True)
        if said:
            if show_thinking and answer.thinking and answer.text == said:
                err.print("\n")
            print(safe(said) if sys.stdout.isatty() else said, end="", flush=True)
    print()
    if remark := answer.remark(max_tokens):
        err.print(safe(remark), style="yellow", soft_wrap=True)


def chat(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Otherwise the alias production, or the first that is served.")
    ] = None,
    effort: Effort = "medium",
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = None,
    system: System = None,
    show_thinking: Annotated[bool, typer.Option("--show-thinking", help="Do not fold the thinking.")] = False,
) -> None:
    """Talk to a model. /help lists what can be done in the chat."""
    client = api(ctx)
    session = Session(_served(client, model), _checked(effort), temperature, max_tokens, show_thinking)
    session.start(system)
    talk(client, session)


def _served(client: Client, model: str | None) -> str:
    """The model to talk to. Raises Failure if it is not served."""
    known = client.models()
    if model in known:
        return model
    if model is not None:
        raise Failure(f"There is no model {model!r}. There are: {', '.join(known)}.")
    if not known:
        raise Failure("No model is served yet. `tandem doctor` says what is missing.")
    return "production" if "production" in known else known[0]


def _checked(effort: str) -> str:
    if effort not in EFFORTS:
        raise Failure(f"The reasoning effort is low, medium or high, not {effort!r}.")
    return effort
