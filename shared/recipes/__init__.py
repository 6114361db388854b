"""Recipes: YAML files of named defaults, and how a person's overrides become a full, checked Recipe."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from shared.schemas import DataKind, Method, Recipe

FOLDER = Path(__file__).parent
LEARNS_FROM: dict[Method, DataKind] = {"sft": "conversations", "dpo": "preferences", "text": "text"}
FOR_KIND: dict[DataKind, str] = {"conversations": "standard", "preferences": "preferences", "text": "text"}


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message names it."""


def names() -> list[str]:
    """The recipes that there are, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def text(name: str) -> str:
    """The YAML of recipe `name`, comments included. Raises RecipeError if there is none."""
    if name not in names():
        raise RecipeError(f"There is no recipe {name!r}. There are: {', '.join(names())}.")
    return (FOLDER / f"{name}.yaml").read_text()


def resolve(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Recipe `name` with `overrides` in place of its values.

    Raises RecipeError that names each override that is unknown or out of bounds."""
    return override(yaml.safe_load(text(name)), overrides or {})


def override(values: dict[str, Any], overrides: dict[str, Any]) -> Recipe:
    """The recipe of these values with `overrides` in place of some. Raises RecipeError as `resolve` does."""
    unknown = [key for key in overrides if key not in Recipe.model_fields]
    if unknown:
        raise RecipeError(" ".join(_unknown(key) for key in unknown))
    try:
        return Recipe.model_validate({**values, **overrides})
    except ValidationError as error:
        raise RecipeError(" ".join(_sentence(e) for e in error.errors())) from None


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, Recipe.model_fields, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(Recipe.model_fields)}."
    return f"A recipe has no value {key!r}.{hint}"


def _sentence(error: dict[str, Any]) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return f"These values do not go together: {message}."
    return f"{'.'.join(map(str, error['loc']))} cannot be {error['input']!r}: {message[0].lower()}{message[1:]}."
