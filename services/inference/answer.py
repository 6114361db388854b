"""One answer of chat as its tokens come: parsed, cut at a stop, its thinking capped, its log-probabilities kept."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.inference.logprobs import chat
from services.inference.protocol import ChatRequest
from services.inference.stops import ContentStops
from services.inference.thinking import ThinkingBudget
from shared.harmony import Delta, Encoder, Parser


@dataclass(frozen=True, slots=True)
class Said:
    """A delta to send, and the log-probabilities of the content's tokens that it completes."""

    delta: Delta
    logprobs: list[dict[str, Any]]


class Answer:
    """Give it each token that an engine generates; it says what to send, and when the engine is to stop.

    Two ends are not the engine's own. When `over`, a stop string was found: nothing more is sent. When `thought_enough`,
    the engine has to go on from what was generated and, after it, the ids that `force` gives.
    """

    def __init__(self, request: ChatRequest, encoder: Encoder, begun: Sequence[int] = ()) -> None:
        """`begun` are ids at the prompt's end that are the beginning of this answer: they are not said again."""
        self.encoder, self.parser, self._told = encoder, Parser(encoder), request.logprobs
        for token in begun:
            self.parser.feed(token)
        self._stops = ContentStops(request.stop)
        then = "call" if request.must_call else "answer"
        self.thinking = ThinkingBudget(request.thinking_token_budget, encoder, then)
        self.thought_enough = False
        self._owed: deque[dict[str, Any]] = deque()
        self._due = 0  # bytes of the content that was sent, without those of the tokens that were told
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def feed(self, token: int, logprob: float = 0.0, top: Sequence[tuple[int, float]] = ()) -> list[Said]:
        """What to send after `token`; `logprob` and `top` as in `services.inference.logprobs`."""
        deltas = self.parser.feed(token)
        self.thought_enough = self.thinking.spent(token, self.parser)
        if self._told and self.parser.writing == "content" and token not in self.encoder.special_ids:
            self._owed.append(chat(self.encoder, token, logprob, top))
        return self._say(self._stops.feed(deltas))

    def force(self) -> tuple[int, ...]:
        """The ids that end the thinking; they count as generated."""
        for token in self.thinking.ending:
            self.parser.feed(token)
        self.thought_enough = False
        return self.thinking.ending

    def finish(self) -> list[Said]:
        """What is still to be sent when the engine has ended."""
        return self._say([*self._stops.feed(self.parser.finish()), *self._stops.finish()])

    @property
    def over(self) -> bool:
        return self._stops.found is not None

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended the answer, as vLLM names it."""
        return self._stops.found

    @property
    def finish_reason(self) -> str:
        """In OpenAI's words: stop, tool_calls or length."""
        return "stop" if self.over else self.parser.message()["finish_reason"]

    def message(self) -> dict[str, Any]:
        """What was said: `content`, `reasoning` and `tool_calls` as the parser has them."""
        calls = self.parser.message()["tool_calls"]
        return {"content": "".join(self._content), "reasoning": "".join(self._reasoning), "tool_calls": calls}

    def _say(self, deltas: Sequence[Delta]) -> list[Said]:
        said = []
        for delta in deltas:
            content = delta.recipient is None and delta.channel != "analysis"
            if delta.recipient is None:
                (self._content if content else self._reasoning).append(delta.text)
            said.append(Said(delta, self._paid(delta.text) if content else []))
        return said

    def _paid(self, text: str) -> list[dict[str, Any]]:
        """The log-probabilities that are due with `text`: of the tokens that it has something of."""
        self._due += len(text.encode())
        paid = []
        while self._owed and self._due > 0:
            paid.append(self._owed.popleft())
            self._due -= len(paid[-1]["bytes"])
        return paid
