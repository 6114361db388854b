"""A cap on thinking: so many tokens of analysis, then the model is made to go on with its answer."""

from typing import Literal

from shared.harmony import Encoder, Parser, Piece
from shared.harmony.encoder import MESSAGE

_OPENINGS = {"answer": ("final", "<|message|>"), "call": ("commentary to=functions.",)}


class ThinkingBudget:
    """Counts the tokens of thinking, those `used`, and says when they are spent; -1 of them are never spent.

    `ending` are the ids that then follow what was generated, as if the model had said them: the end of its thinking and
    the beginning of the answer, or of a tool call where the request demands one.
    """

    def __init__(self, tokens: int, encoder: Encoder, then: Literal["answer", "call"] = "answer") -> None:
        self.tokens, self.used = tokens, 0
        texts = ("<|end|>", "<|start|>", "assistant", "<|channel|>", *_OPENINGS[then])
        self.ending = tuple(encoder.encode([_piece(text) for text in texts]))

    def spent(self, token: int, parser: Parser) -> bool:
        """Whether `ending` has to follow `token`, which `parser` has just been fed. Call it with each token, in order."""
        if parser.writing != "reasoning":
            return False
        if token != MESSAGE:  # the one that opens the thinking is none of it
            self.used += 1
        return 0 <= self.tokens <= self.used


def _piece(text: str) -> Piece:
    return Piece(text, "assistant", None, "special" if text.startswith("<|") else "header", None)
