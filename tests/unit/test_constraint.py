"""Under a grammar only what the request asked for can be generated."""

import json
import random

import jsonschema
import pytest

from services.inference.constraint import Constraint
from services.inference.grammar import ANY_OBJECT, answer_grammar
from shared.harmony import Encoder, Parser
from shared.harmony.encoder import CALL, RETURN, ROWS
from tests.unit.test_harmony import stream

THOUGHT = "<|channel|>analysis<|message|>So be it, 日本 🙂.\n\n{<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["new", "old", None]}, "maxItems": 3},
        "home": {"$ref": "#/$defs/place"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"place": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "pattern": "^[A-Z][a-z]{1,5}$"}}, "additionalProperties": False}]}},
}  # fmt: skip
FIND = {"name": "find", "strict": True, "parameters": PERSON}
NOW = {"name": "now", "parameters": {}}


def takes(constraint: Constraint, ids: list[int]) -> bool:
    """Whether each id is allowed when its turn comes."""
    for token in ids:
        if not _may_come(constraint.allowed(), token):
            return False
        constraint.advance(token)
    return True


def _may_come(mask: bytes, token: int) -> bool:
    return bool(mask[token >> 3] >> (token & 7) & 1)


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ('{"name":"Zoë","age":42}', True),
        ('{"name": "Zoë", "age": 42, "tags": ["new", null], "home": {"city": "Bonn"}}', True),
        ('{"name":"Zoë","age":42,"home":null}', True),
        ('{"name":"Zoë"}', False),
        ('{"name":"Zoë","age":151}', False),
        ('{"name":"Zoë","age":42,"more":1}', False),
        ('{"name":"Zoë","age":42,"home":{"city":"bonn"}}', False),
        ('{\n"name":"Zoë","age":42}', False),
        ("Here it is.", False),
        ("", False),
    ],
)
def test_the_answer_follows_its_schema_and_thinking_is_free(answer: str, fits: bool, encoder: Encoder) -> None:
    for before in (FINAL, THOUGHT + FINAL, "<|channel|>final <|constrain|>json<|message|>"):
        ids = stream(encoder, before + answer + "<|return|>")
        assert takes(Constraint(encoder, answer_grammar(PERSON)), ids) is fits


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_drawn_from_the_allowed_ids_is_valid(seed: int, encoder: Encoder) -> None:
    """A model that draws at random, though it likes to come to an end."""
    chance, parser = random.Random(seed), Parser(encoder)
    constraint = Constraint(encoder, answer_grammar(PERSON, [FIND], must_call=bool(seed % 2)))
    endings = stream(encoder, '<|return|><|call|><|end|>"}],')
    for token in stream(encoder, THOUGHT):
        constraint.advance(token)
        parser.feed(token)
    while not parser.stopped:
        mask = constraint.allowed()
        ending = [token for token in endings if _may_come(mask, token)]
        allowed = [token for token in range(ROWS) if _may_come(mask, token)]
        token = chance.choice(ending if ending and chance.random() < 0.8 else allowed)
        constraint.advance(token)
        parser.feed(token)
    message = parser.message()
    called = [call["function"]["arguments"] for call in message["tool_calls"]]
    for text in called or [message["content"]]:
        jsonschema.validate(json.loads(text), PERSON)
    assert called or not seed % 2


def test_after_its_end_an_answer_can_only_return(encoder: Encoder) -> None:
    constraint = Constraint(encoder, answer_grammar({"enum": [7]}))
    for token in stream(encoder, FINAL + "7"):
        constraint.advance(token)
    mask = constraint.allowed()
    assert len(mask) * 8 >= ROWS and [token for token in range(ROWS) if _may_come(mask, token)] == [RETURN]


CALLS = {
    "as the model writes it": '<|channel|>commentary to=functions.now <|constrain|>json<|message|>{"a":[1]}<|call|>',
    "as the template has it": ' to=functions.now<|channel|>commentary json<|message|>{"a":[1]}<|call|>',
    "after words to the user": (
        "<|channel|>commentary<|message|>One moment.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.now<|message|>{"a":[1]}<|call|>'
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_demanded_comes_in_any_of_its_spellings(name: str, encoder: Encoder) -> None:
    demanded = answer_grammar(None, [NOW, FIND], must_call=True)
    assert takes(Constraint(encoder, demanded), stream(encoder, THOUGHT + CALLS[name]))
    assert not takes(Constraint(encoder, demanded), stream(encoder, FINAL))
    assert not takes(Constraint(encoder, demanded), stream(encoder, " to=functions.other<|channel|>"))
    assert not takes(Constraint(encoder, answer_grammar(None, [FIND], must_call=True)), stream(encoder, CALLS[name]))


def test_with_tools_an_answer_by_schema_or_a_call_may_come(encoder: Encoder) -> None:
    either = answer_grammar(ANY_OBJECT, [NOW])
    assert takes(Constraint(encoder, either), stream(encoder, FINAL + '{"x": [1, {}]}<|return|>'))
    assert takes(Constraint(encoder, either), stream(encoder, CALLS["after words to the user"]))
    assert not takes(Constraint(encoder, either), stream(encoder, FINAL + "[]"))


def test_a_strict_tool_has_its_arguments_by_schema_and_the_answer_is_free(encoder: Encoder) -> None:
    strict = answer_grammar(None, [FIND])
    call = " to=functions.find<|channel|>commentary json<|message|>"
    assert takes(Constraint(encoder, strict), stream(encoder, FINAL + "Nobody.\n\nSorry!<|return|>"))
    assert takes(Constraint(encoder, strict), [*stream(encoder, call + '{"name":"Bo","age":1}'), CALL])
    assert not takes(Constraint(encoder, strict), stream(encoder, call + '{"name":"Bo","age":true'))


def test_where_anything_may_come_there_is_no_grammar() -> None:
    assert answer_grammar(None) is None and answer_grammar(None, [NOW]) is None


def test_a_token_out_of_turn_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="within its grammar"):
        Constraint(encoder, answer_grammar(ANY_OBJECT)).advance(CALL)
