"""How an answer is shown: its last lines while it comes, rendered Markdown when it is done; plain text in a pipe."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from services.cli.chat.answer import Answer
from services.cli.show import out, safe

THINKING_LINES = 4  # of thinking that comes; the rest is folded
MARGIN = 4  # lines of the terminal that an answer that comes leaves free


def receive(chunks: Iterable[Mapping[str, Any]], answer: Answer, show_thinking: bool) -> bool:
    """Show an answer as it comes and fill `answer`; True if the person stopped it with Ctrl-C.

    A Failure on the way is raised after what came has been shown."""
    try:
        if out.is_terminal:
            _live(chunks, answer, show_thinking)
        else:
            _stream(chunks, answer, show_thinking)
    except KeyboardInterrupt:
        return True
    finally:
        if out.is_terminal:
            _done(answer, show_thinking)
        else:
            out.print()
    return False


def _live(chunks: Iterable[Mapping[str, Any]], answer: Answer, show_thinking: bool) -> None:
    # Transient: a live display taller than the terminal cannot be redrawn, so it is replaced when the answer is done.
    with Live(
        get_renderable=lambda: _coming(answer, show_thinking), console=out, transient=True, refresh_per_second=12
    ):
        for chunk in chunks:
            answer.take(chunk, time.monotonic())


def _stream(chunks: Iterable[Mapping[str, Any]], answer: Answer, show_thinking: bool) -> None:
    thinking = False
    for chunk in chunks:
        thought, text = answer.take(chunk, time.monotonic())
        if thought and show_thinking:
            out.file.write(thought)
            thinking = True
        if text:
            out.file.write(("\n\n" if thinking else "") + text)
            thinking = False
        out.file.flush()


def _coming(answer: Answer, show_thinking: bool) -> RenderableType:
    height = max(out.height - MARGIN, 3)
    if not answer.thinking and not answer.text:
        return Text(f"… {time.monotonic() - answer.began:.0f} s", style="dim")
    parts: list[RenderableType] = []
    if answer.thinking and (show_thinking or not answer.text):
        lines = height // 2 if answer.text else height
        parts.append(_tail(answer.thinking, lines if show_thinking else THINKING_LINES, "dim italic"))
    elif answer.thinking:
        parts.append(Text("▸ thought", style="dim italic"))
    if answer.text:
        parts.append(_tail(answer.text, height - len(parts) * (height // 2 if show_thinking else 1), ""))
    return Group(*parts)


def _tail(text: str, lines: int, style: str) -> Text:
    """The last `lines` lines of a text as it folds in this terminal."""
    recent = Text(safe(text[-(lines + 1) * out.width :]), style=style)
    return Text("\n").join(recent.wrap(out, out.width)[-lines:])


def _done(answer: Answer, show_thinking: bool) -> None:
    if answer.thinking and show_thinking:
        out.print(Text(safe(answer.thinking.strip()), style="dim italic"))
        out.print()
    elif answer.thinking:
        words = len(answer.thinking.split())
        out.print(f"▸ thought in {words:,} word{'' if words == 1 else 's'}; /thinking shows it", style="dim italic")
    if answer.text:
        out.print(Markdown(safe(answer.text)))
