"""Which tokens may come next, by a grammar. llguidance reads the grammar and computes the masks."""

from collections.abc import Sequence
from functools import lru_cache

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from shared.harmony import Encoder, Piece
from shared.harmony.encoder import RETURN, ROWS


class Constraint:
    """One answer while it is made: ask what is `allowed`, draw a token from it, `advance` by it, and so on.

    An answer that goes on from something begun, or that has words put into it, is advanced by those tokens, too."""

    def __init__(self, encoder: Encoder, grammar: str) -> None:
        """`grammar` is what `services.inference.grammar` writes. The first one takes some seconds: see `vocabulary`."""
        self._matcher = LLMatcher(vocabulary(encoder), grammar)
        self._check()

    def allowed(self) -> bytes:
        """One bit for each id, the lowest bit of the first byte for id 0: set where the token may come next.

        At least ROWS bits. When the answer is complete, that leaves `<|return|>`."""
        mask = self._matcher.compute_bitmask()
        self._check()
        return mask

    def advance(self, token: int) -> None:
        """Go on after `token`. Raises ValueError if it was not allowed."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ValueError(f"The answer cannot go on within its grammar: {self._matcher.get_error()}")


@lru_cache(maxsize=1)
def vocabulary(encoder: Encoder) -> LLTokenizer:
    """The tokens as llguidance knows them: 2.4 s and 15 MB, once for a server."""
    return LLTokenizer(TokenizerWrapper(_Tokens(encoder)))


class _Tokens:
    """What llguidance asks of a tokenizer."""

    eos_token_id = RETURN
    bos_token_id = None

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.tokens = [encoder.token_bytes(token) for token in range(ROWS)]
        self.special_token_ids = sorted(encoder.special_ids)

    def __call__(self, text: str) -> Sequence[int]:
        return self.encoder.encode([Piece(text, "assistant", None, "content", None)])
