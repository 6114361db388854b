"""Which tokens may come next, by a grammar. llguidance reads the grammar and computes the masks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from services.inference.grammar import one_line
from shared.harmony import Encoder, Piece
from shared.harmony.encoder import RETURN, ROWS

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "not")
_DEFINITIONS = ("$defs", "definitions")


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


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises ValueError that says where `schema` is wrong, or asks for what cannot be had, as a JSON pointer."""
    if problem := _problem(schema):
        where, inner = "", schema
        while step := next((s for s in _inside(inner) if _problem(_rooted(s[1], schema)) == problem), None):
            where, inner = where + step[0], step[1]
        raise ValueError(f"at {where or '/'}: {problem}")


def _problem(schema: Mapping[str, Any]) -> str:
    return " ".join(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(one_line(schema))).split())


def _rooted(inner: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a schema with the definitions that it may refer to."""
    return {**{name: root[name] for name in _DEFINITIONS if name in root}, **inner}


def _inside(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schemas directly inside `schema`, with the way to them."""
    found: list[tuple[str, Any]] = [(f"/{name}", schema.get(name)) for name in _SINGLE]
    for name in _MAPS:
        if isinstance(schema.get(name), Mapping):
            found += [(f"/{name}/{key}", value) for key, value in schema[name].items()]
    for name in _LISTS:
        if isinstance(schema.get(name), list):
            found += [(f"/{name}/{n}", value) for n, value in enumerate(schema[name])]
    yield from ((way, value) for way, value in found if isinstance(value, Mapping))
