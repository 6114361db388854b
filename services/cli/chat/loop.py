"""The chat in a terminal: read a line, do what it says or ask the model, until the person leaves."""

import contextlib
import sys
import time

from services.cli.chat import commands
from services.cli.chat.answer import Answer
from services.cli.chat.screen import receive
from services.cli.chat.session import Session
from services.cli.client import Client, Failure
from services.cli.show import err, out, safe

PROMPT = "› "


def talk(client: Client, session: Session) -> None:
    """Chat until /exit or the end of the input. Errors are told and the chat goes on."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() a history and keys to edit with; Windows has none
    out.print(
        f"{safe(session.model)} · reasoning {session.effort} · /help lists the commands, Ctrl-D leaves", style="dim"
    )
    while True:
        try:
            line = _read()
        except KeyboardInterrupt:
            out.print("\nCtrl-D or /exit leaves.", style="dim")
            continue
        except EOFError:
            out.print()
            return
        try:
            if line.startswith("/"):
                out.print(safe(commands.run(session, line, client.models)))
            elif line:
                _answer(client, session, line)
        except commands.Leave:
            return
        except Failure as failure:
            err.print(safe(failure), style="red")
        except KeyboardInterrupt:
            out.print("Stopped.", style="dim")


def _read() -> str:
    """A message; a line that ends with a backslash goes on with the next one."""
    lines = [input(PROMPT if sys.stdin.isatty() else "")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input("  " if sys.stdin.isatty() else ""))
    return "\n".join(lines).strip()


def _answer(client: Client, session: Session, line: str) -> None:
    body = session.ask(line)
    answer, stopped = Answer(time.monotonic()), False
    try:
        stopped = receive(client.chat(body), answer, session.show_thinking)
    finally:
        kept = session.answered(answer)
        remark = "Stopped; what came is kept." if stopped and kept else "Stopped." if stopped else None
        if answer.finish and not stopped:
            remark = answer.remark(session.max_tokens)
        if answer.pieces:
            out.print(answer.speed(), style="dim")
        if remark:
            out.print(safe(remark), style="yellow")
