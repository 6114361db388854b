"""The slash commands of a chat: a line in, a change of the session and lines to show out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.cli.chat.session import EFFORTS, BadChat, Session

Models = Callable[[], list[str]]


class Leave(Exception):
    """The person wants to go."""


@dataclass(frozen=True)
class Command:
    """One slash command. `run` gets the session, what follows the name, and a function that lists the models."""

    usage: str
    about: str
    run: Callable[[Session, str, Models], str]


def run(session: Session, line: str, models: Models) -> str:
    """Do what a line that begins with "/" says; return what to show. Raises Leave; a mistake becomes its sentence."""
    name, _, argument = line.strip().partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        return f"There is no command {name}. /help lists them."
    try:
        return command.run(session, argument.strip(), models)
    except BadChat as mistake:
        return str(mistake)


def _help(session: Session, argument: str, models: Models) -> str:
    shown = {command.usage: command.about for command in COMMANDS.values()}
    keys = {
        "\\ at a line's end": "goes on with the next line",
        "Ctrl-C": "stops an answer and keeps what came",
        "Ctrl-D": "leaves",
    }
    return _columns(shown | keys)


def _clear(session: Session, argument: str, models: Models) -> str:
    session.start(None)
    return "The conversation begins anew."


def _save(session: Session, argument: str, models: Models) -> str:
    default = session.file or Path(f"chat-{datetime.now():%Y%m%d-%H%M%S}.json")
    session.save(Path(argument).expanduser() if argument else default)
    return f"Saved to {session.file}; `tandem datasets add {session.file}` makes a data set of it."


def _load(session: Session, argument: str, models: Models) -> str:
    if not argument:
        raise BadChat("Name the file: /load FILE")
    session.load(Path(argument).expanduser())
    return f"{len(session.messages)} messages of {session.file}; the next answer comes from {session.model}."


def _stats(session: Session, argument: str, models: Models) -> str:
    return _columns(session.stats())


def _settings(session: Session, argument: str, models: Models) -> str:
    return _columns(session.settings())


def _reasoning(session: Session, argument: str, models: Models) -> str:
    if argument.lower() not in EFFORTS:
        raise BadChat(f"The reasoning effort is {session.effort}. Change it with: /reasoning low, medium or high")
    session.effort = argument.lower()
    return f"The reasoning effort is now {session.effort}."


def _model(session: Session, argument: str, models: Models) -> str:
    known = models()
    if not argument:
        return _columns({name: "answers now" if name == session.model else "" for name in known})
    if argument not in known:
        raise BadChat(f"There is no model {argument!r}. There are: {', '.join(known)}.")
    session.model = argument
    return f"The next answer comes from {argument}; the conversation stays."


def _thinking(session: Session, argument: str, models: Models) -> str:
    if argument.lower() in ("on", "off"):
        session.show_thinking = argument.lower() == "on"
        return f"Thinking is {'shown' if session.show_thinking else 'folded'} from now on."
    last = next((m for m in reversed(session.messages) if m["role"] == "assistant"), {})
    return last.get("thinking") or "The last answer came without thinking."


def _temperature(session: Session, argument: str, models: Models) -> str:
    try:
        value = float(argument)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise BadChat(f"The temperature is {session.temperature:g}. Change it with a number from 0 to 2.")
    session.temperature = value
    return f"The temperature is now {value:g}."


def _max_tokens(session: Session, argument: str, models: Models) -> str:
    if not argument.isdecimal() or not int(argument):
        raise BadChat(f"An answer has at most {session.settings()['max tokens']}. Change it with: /max-tokens NUMBER")
    session.max_tokens = int(argument)
    return f"An answer has at most {session.max_tokens:,} tokens, thinking included."


def _exit(session: Session, argument: str, models: Models) -> str:
    raise Leave


COMMANDS: dict[str, Command] = {
    "/help": Command("/help", "lists the commands", _help),
    "/model": Command("/model [NAME]", "lists the models, or changes to one", _model),
    "/reasoning": Command("/reasoning low|medium|high", "how much the model thinks", _reasoning),
    "/thinking": Command("/thinking [on|off]", "shows the last thinking; on shows it always", _thinking),
    "/temperature": Command("/temperature NUMBER", "0 always takes the likeliest token", _temperature),
    "/max-tokens": Command("/max-tokens NUMBER", "the longest answer, thinking included", _max_tokens),
    "/settings": Command("/settings", "shows the settings", _settings),
    "/stats": Command("/stats", "shows messages, tokens and speed", _stats),
    "/save": Command("/save [FILE]", "saves the conversation as a row of a data set", _save),
    "/load": Command("/load FILE", "goes on with a saved conversation", _load),
    "/clear": Command("/clear", "begins anew; the system message stays", _clear),
    "/exit": Command("/exit", "leaves", _exit),
}


def _columns(pairs: dict[str, str]) -> str:
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in pairs.items())
