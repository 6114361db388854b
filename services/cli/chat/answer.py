"""An answer as it comes: thinking, text, and how fast."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What the chunks of one streamed completion add up to. Times are seconds of one monotonic clock."""

    began: float
    thinking: str = ""
    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    finish: str | None = None
    pieces: int = 0
    first: float | None = None
    last: float | None = None
    counted: int | None = None

    def take(self, chunk: Mapping[str, Any], now: float) -> tuple[str, str]:
        """Go on by one chunk; return what it added to the thinking and to the text."""
        self.counted = (chunk.get("usage") or {}).get("completion_tokens", self.counted)
        choice = (chunk.get("choices") or [{}])[0]
        self.finish = choice.get("finish_reason") or self.finish
        delta = choice.get("delta") or {}
        # vLLM says `reasoning`, llama.cpp and DeepSeek `reasoning_content`
        thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
        text = delta.get("content") or ""
        for call in delta.get("tool_calls") or []:
            self._call(call)
        if thought or text or delta.get("tool_calls"):
            self.pieces += 1
            self.first = self.first if self.first is not None else now
            self.last = now
        self.thinking += thought
        self.text += text
        return thought, text

    def _call(self, call: Mapping[str, Any]) -> None:
        function = call.get("function") or {}
        parts = self.calls.setdefault(call.get("index") or 0, ["", ""])
        parts[0] += function.get("name") or ""
        parts[1] += function.get("arguments") or ""

    @property
    def tokens(self) -> int:
        """Tokens generated: as the server counted, or as many as pieces came."""
        return self.counted if self.counted is not None else self.pieces

    @property
    def first_after(self) -> float | None:
        """Seconds until the first token."""
        return None if self.first is None else self.first - self.began

    @property
    def rate(self) -> float | None:
        """Tokens per second after the first."""
        if self.first is None or self.last is None or self.last <= self.first or self.tokens < 2:
            return None
        return (self.tokens - 1) / (self.last - self.first)

    def message(self) -> dict[str, Any] | None:
        """The assistant's message as in a data set row; None when nothing came that could be kept."""
        if not self.text:
            return None
        return {"role": "assistant", "content": self.text} | ({"thinking": self.thinking} if self.thinking else {})

    def speed(self) -> str:
        """ "15.8 tok/s · first token after 0.42 s · 214 tokens"."""
        parts = [f"{self.rate:,.1f} tok/s"] if self.rate else []
        parts += [f"first token after {self.first_after:.2f} s"] if self.first_after is not None else []
        return " · ".join([*parts, f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"])

    def remark(self, limit: int | None) -> str | None:
        """What is odd about how the answer ended, in a sentence."""
        called = ", ".join(f"{name}({arguments})" for name, arguments in self.calls.values())
        if called:
            return f"The model wants to call {called}. There are no tools here."
        if self.finish == "length":
            at = f" at {limit:,} tokens" if limit else ""
            return f"The answer was cut{at}. More: --max-tokens, or /max-tokens in a chat."
        if not self.text:
            return "The model gave no answer" + (", only thinking." if self.thinking else ".")
        return None


def openai_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of a data set row as OpenAI's API takes it: no thinking, which harmony leaves out of the history, and
    the arguments of a tool call as text."""
    sent = {key: value for key, value in message.items() if key != "thinking"}
    if message.get("tool_calls"):
        sent["tool_calls"] = [_text_arguments(call, n) for n, call in enumerate(message["tool_calls"])]
    return sent


def _text_arguments(call: Mapping[str, Any], number: int) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call_{number}", "type": "function", **call, "function": {**function, "arguments": text}}
