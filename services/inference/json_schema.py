"""Whether a JSON schema can be used, and if not, where it is wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

from llguidance import LLMatcher

from services.inference.grammar import Schema, one_line

MOST_CHARACTERS = 100_000
MOST_LEVELS = 500  # one inside the other, references followed: beyond a thousand or two llguidance's stack overflows
_TRIES = 200  # parts that are looked at to find the place
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "not")
_DEFINITIONS = ("$defs", "definitions")


def check_schema(schema: Schema) -> None:
    """Raises ValueError that says where `schema` is wrong, or asks for what cannot be had, as a JSON pointer."""
    if (levels := _levels(schema)) > MOST_LEVELS:
        raise ValueError(f"at /: it is {levels} levels deep; at most {MOST_LEVELS} are allowed.")
    if (size := len(one_line(schema))) > MOST_CHARACTERS:
        raise ValueError(f"at /: it has {size} characters; at most {MOST_CHARACTERS} are allowed.")
    if problem := _problem(schema):
        raise ValueError(f"at {_place(schema, problem) or '/'}: {problem}")


def _problem(schema: Schema) -> str:
    """What llguidance has against it; empty if nothing."""
    return " ".join(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(one_line(schema))).split())


# ---- the place


def _place(schema: Schema, problem: str) -> str:
    """The way to the innermost part that has the same problem by itself."""
    definitions = {name: schema[name] for name in _DEFINITIONS if name in schema}  # a part may refer to them
    way, inner, tries = "", schema, iter(range(_TRIES))
    while True:
        tried = (part for part, _ in zip(_inside(inner), tries, strict=False))
        step = next((part for part in tried if _problem({**definitions, **part[1]}) == problem), None)
        if step is None:
            return way
        way, inner = way + step[0], step[1]


def _inside(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The schemas directly inside `schema`, with the way to them."""
    found: list[tuple[str, Any]] = [(f"/{name}", schema.get(name)) for name in _SINGLE]
    for name in _MAPS:
        if isinstance(schema.get(name), Mapping):
            found += [(f"/{name}/{key}", value) for key, value in schema[name].items()]
    for name in _LISTS:
        if isinstance(schema.get(name), list):
            found += [(f"/{name}/{n}", value) for n, value in enumerate(schema[name])]
    yield from ((way, value) for way, value in found if isinstance(value, Mapping))


# ---- the depth


def _levels(schema: Schema) -> int:
    """No way through the schema is longer: the height of the whole and of each part that something refers to."""
    referred: set[str] = set()
    whole = _height(schema, referred)
    return whole + sum(_height(_target(schema, pointer), set()) for pointer in referred)


def _height(part: Any, referred: set[str]) -> int:
    """How many levels `part` has; what is referred to in it goes into `referred`."""
    level, height = [part], 0
    while level:
        height += 1
        referred |= {part["$ref"] for part in level if isinstance(part, Mapping) and isinstance(part.get("$ref"), str)}
        level = [inner for part in level for inner in _values(part)]
    return height


def _values(part: Any) -> list[Any]:
    inner = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
    return [value for value in inner if isinstance(value, Mapping | list)]


def _target(schema: Schema, pointer: str) -> Any:
    """What a pointer such as `#/$defs/place` names; the whole for any that is written in another way."""
    found: Any = schema
    for name in pointer.removeprefix("#").split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        found = found.get(name, schema) if isinstance(found, Mapping) else schema
    return found
