"""A JSON schema that cannot be used is refused with the place where it is wrong, before it costs much or too much."""

import time
from typing import Any

import pytest

from services.inference.json_schema import MOST_LEVELS, check_schema
from tests.unit.test_constraint import PERSON


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "at /: Invalid type: objekt"),
        ({"properties": {"a": {"items": {"type": "foo"}}}}, "at /properties/a/items: Invalid type: foo"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "c"}}}, "at /properties/a: Invalid type"),
        ({"anyOf": [{}, {"properties": {"q": {"uniqueItems": True}}}]}, "at /anyOf/1/properties/q: Unimplemented keys"),
        ({"properties": {"a": {"pattern": "("}}}, "at /properties/a: regex parse error"),
        ({"$ref": "#/nowhere"}, "at /: Pointer '/nowhere' does not exist"),
        ({"properties": 3}, "at /: properties must be an object"),
        ({"minimum": 5, "maximum": 1, "type": "integer"}, "at /: Unsatisfiable schema"),
        ({"not": {"type": "string"}, "x-guidance": {"lenient": True}}, "at /: Unimplemented keys"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_place(schema: dict, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_schema(schema)
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_a_good_schema_is_not_refused() -> None:
    check_schema(PERSON)
    check_schema({})
    check_schema({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}})


def chain(length: int, link: str) -> dict[str, Any]:
    """Definitions of which each refers to the next."""
    defined = {f"d{n}": {link: {"items": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**defined, f"d{length}": {"type": "string"}}}


@pytest.mark.parametrize("link", ["items", "properties", "additionalProperties"])
def test_a_schema_of_any_depth_leaves_the_process_alive(link: str) -> None:
    """Deep ones would overflow the stack and end the server; what is allowed is far from that."""
    check_schema(chain(MOST_LEVELS // 3 - 5, link))
    with pytest.raises(ValueError, match="levels deep; at most 500"):
        check_schema(chain(2000, link))
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"items": deep}
    with pytest.raises(ValueError, match="levels deep"):
        check_schema(deep)


def test_a_large_schema_is_judged_soon() -> None:
    began = time.monotonic()
    many = {f"p{n}": {"type": "object", "properties": {"a": {"type": "string"}}} for n in range(650)}
    with pytest.raises(ValueError, match="Invalid type: foo"):
        check_schema({"$defs": many, "properties": {**many, "last": {"type": "foo"}}})
    with pytest.raises(ValueError, match="characters; at most 100000"):
        check_schema({"enum": [f"value {n}" for n in range(10_000)]})
    assert time.monotonic() - began < 10
