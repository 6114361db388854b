"""A conversation with a model: its settings, its messages, its figures, and its form as a row of a data set."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.cli.chat.answer import Answer, openai_message

EFFORTS = ("low", "medium", "high")
ROLES = ("system", "developer", "user", "assistant", "tool")


class BadChat(ValueError):
    """A file that holds no conversation, or a value that a setting cannot have; the message says why."""


@dataclass
class Session:
    """One conversation. `messages` are those of a data set row; an assistant's may have "thinking"."""

    model: str
    effort: str = "medium"
    temperature: float = 1.0
    max_tokens: int | None = None
    show_thinking: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    file: Path | None = None
    tools: list[Any] = field(default_factory=list)

    def start(self, system: str | None) -> None:
        """Begin anew; `system`, or the system message that was there, stays as the first message."""
        kept = system or next((m["content"] for m in self.messages if m["role"] == "system"), None)
        self.messages = [{"role": "system", "content": kept}] if kept else []
        self.tools = []

    def ask(self, text: str) -> dict[str, Any]:
        """Add the person's message and return the body of the request for its answer."""
        self.messages.append({"role": "user", "content": text})
        return self.body()

    def body(self) -> dict[str, Any]:
        """The request of OpenAI's chat API for the next message."""
        return {
            "model": self.model,
            "messages": [openai_message(message) for message in self.messages],
            "reasoning_effort": self.effort,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def answered(self, answer: Answer) -> bool:
        """Keep what came; with nothing to keep take the person's message back, for a chat alternates. True if kept."""
        message = answer.message()
        if message is None:
            self.messages.pop()
            return False
        self.messages.append(message)
        self.answers.append(answer)
        return True

    def row(self) -> dict[str, Any]:
        """The conversation as a row of a data set, with the settings that gave it."""
        settings = {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}
        tools = {"tools": self.tools} if self.tools else {}
        return {"messages": self.messages, **tools, "reasoning_effort": self.effort, **settings}

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSON, which is a data set of one row as well. Raises BadChat."""
        if not any(message["role"] == "assistant" for message in self.messages):
            raise BadChat("There is no answer to save yet.")
        if path.exists() and path != self.file:
            raise BadChat(f"{path} is there already; choose another name.")
        try:
            path.write_text(json.dumps(self.row(), ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadChat(f"{path} cannot be written: {error.strerror}.") from None
        self.file = path

    def load(self, path: Path) -> None:
        """Go on with a saved conversation or a row of a data set. Raises BadChat and changes nothing."""
        row = _read(path)
        messages = row.get("messages")
        if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
            raise BadChat(f'{path} holds no conversation: it needs "messages", a list of roles and contents.')
        self.messages, self.tools, self.file = messages, row.get("tools") or [], path
        if row.get("reasoning_effort") in EFFORTS:
            self.effort = row["reasoning_effort"]

    def settings(self) -> dict[str, str]:
        """The settings by name, as text."""
        return {
            "model": self.model,
            "reasoning": self.effort,
            "temperature": f"{self.temperature:g}",
            "max tokens": f"{self.max_tokens:,}" if self.max_tokens else "as many as the server permits",
            "thinking": "shown" if self.show_thinking else "folded",
            "system": next((m["content"] for m in self.messages if m["role"] == "system"), "none"),
        }

    def stats(self) -> dict[str, str]:
        """The figures of the answers so far, as text."""
        rates = [answer.rate for answer in self.answers if answer.rate]
        firsts = [answer.first_after for answer in self.answers if answer.first_after is not None]
        mean = {
            "speed": f"{sum(rates) / len(rates):,.1f} tok/s on average" if rates else "",
            "first token": f"{sum(firsts) / len(firsts):.2f} s on average" if firsts else "",
        }
        tokens = sum(answer.tokens for answer in self.answers)
        return {
            "messages": str(len(self.messages)),
            "answers": str(len(self.answers)),
            "tokens": f"{tokens:,} generated",
        } | mean


def _read(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file, or on its first line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadChat(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadChat(f"{path} is no text.") from None
    for candidate in (text, text.partition("\n")[0]):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    raise BadChat(f"{path} is no JSON object.")


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)
