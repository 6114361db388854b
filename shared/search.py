"""What a sweep may search: the values, the range that is usual for each, how a person writes one, and what is refused."""

import itertools
import json
from typing import Any

from shared import recipes
from shared.recipes import RecipeError
from shared.schemas import Recipe
from shared.sweep_schemas import Range, Search, SweepJob

# What makes a model learn better or worse. The others change what is measured (the rows held back, their tokens, the base,
# dpo_beta the scale of the loss itself), so that trials could not be compared, or only where and how often it is told.
NUMBERS = (
    "learning_rate", "lora_alpha", "epochs", "warmup", "weight_decay", "lora_dropout", "min_learning_rate", "max_grad_norm",
)  # fmt: skip
WHOLE = ("lora_rank", "accumulation", "steps", "batch_size", "seed")
WORDS = ("scheduler", "optimizer", "rslora", "train_attention", "train_experts", "train_router")  # in lists only
SEARCHABLE = (*NUMBERS, *WHOLE, *WORDS)
FIRST = ("learning_rate", "lora_rank")  # what is searched when nobody says: they matter most
EFFECTIVE = (4, 8, 16, 32)  # examples a step
MOST_CORNERS = 20_000


def usual(recipe: Recipe) -> Search:
    """The usual search of each value for which there is one, from the recipe's own values."""
    rate = recipe.learning_rate
    low, high = (1e-5, 5e-4) if 1e-5 <= rate <= 5e-4 else (rate / 20, rate * 2.5)  # a tiny base learns at other rates
    found: Search = {
        "learning_rate": Range(low=low, high=high),
        "lora_rank": [8, 16, 32, 64],
        "lora_alpha": [16, 32, 64],
        "warmup": Range(low=0.01, high=0.1),
        "weight_decay": Range(low=0, high=0.1),
    }
    if len(batches := [size // recipe.batch_size for size in EFFECTIVE if size % recipe.batch_size == 0]) > 1:
        found["accumulation"] = batches
    if recipe.steps is None:
        found["epochs"] = Range(low=1, high=5)
    elif recipe.steps > 1:
        found["steps"] = Range(low=recipe.steps // 2, high=2 * recipe.steps)
    return found


def resolve(job: SweepJob, recipe: Recipe) -> Search:
    """The search that was asked for, each value as a range or a list. Raises RecipeError with what is wrong of it."""
    asked = job.search or dict.fromkeys(FIRST, "")
    for name in asked:
        _check_name(name, recipe)
    known = usual(recipe)
    search = {name: _choice(name, given, known) for name, given in asked.items()}
    for values in corners(search):
        recipes.override(recipe.model_dump(), values)
    return search


def corners(search: Search) -> list[dict[str, Any]]:
    """Every combination of the ends of ranges and the items of lists: where all of these work, what is between them does.

    Raises RecipeError if there are too many of them to try."""
    sides = [choice if isinstance(choice, list) else [choice.low, choice.high] for choice in search.values()]
    found = list(itertools.islice(itertools.product(*sides), MOST_CORNERS + 1))
    if len(found) > MOST_CORNERS:
        raise RecipeError("That is too much to search at once: name fewer values, or give shorter lists.")
    return [dict(zip(search, values, strict=True)) for values in found]


def written(choice: Range | list[Any]) -> str:
    """A range or a list as a person writes it: `1e-05..0.0005`, `8, 16, 32`; `parse` reads it."""
    if isinstance(choice, Range):
        return f"{choice.low:g}..{choice.high:g}"
    return ", ".join(item if isinstance(item, str) else json.dumps(item) for item in choice)


def parse(name: str, text: str) -> Range | list[Any]:
    """`1e-5..5e-4` as a range, `8, 16, 32` as a list. Raises RecipeError."""
    low, dots, high = text.partition("..")
    if not dots:
        return [_item(part.strip()) for part in text.split(",") if part.strip()]
    try:
        ends = _number(low), _number(high)
    except ValueError:
        raise RecipeError(
            f"{name}: {text!r} is no range. Write two numbers with two dots between, as in 1e-5..5e-4."
        ) from None
    if ends[0] >= ends[1]:
        raise RecipeError(f"{name}: a range goes from low to high, and {text!r} does not.")
    return Range(low=ends[0], high=ends[1])


def _choice(name: str, given: Range | list[Any] | str, known: Search) -> Range | list[Any]:
    if given == "":
        if name not in known:
            raise RecipeError(
                f"{name} has no usual range for this recipe. Give a range, as in 1..5, or a list, as in 8, 16, 32."
            )
        return known[name]
    choice = parse(name, given) if isinstance(given, str) else given
    if isinstance(choice, list) and len({json.dumps(item) for item in choice}) < max(2, len(choice)):
        raise RecipeError(f"{name}: a list needs at least two different values, as in 8, 16, 32; this one is {choice}.")
    if isinstance(choice, Range) and name in WORDS:
        raise RecipeError(f"{name} is no number, so it takes a list with commas between, and no range.")
    if isinstance(choice, Range) and name in WHOLE and (choice.low % 1 or choice.high % 1):
        raise RecipeError(f"{name} takes whole numbers, and {written(choice)} does not begin and end with one.")
    return choice


def _check_name(name: str, recipe: Recipe) -> None:
    if name not in Recipe.model_fields:
        recipes.override(recipe.model_dump(), {name: None})  # which refuses it, with the name that was meant
    if name not in SEARCHABLE:
        raise RecipeError(
            f"{name} cannot be searched: it changes what is measured or told, not how well it is learned. "
            f"What can be: {', '.join(SEARCHABLE)}."
        )
    if name == "epochs" and recipe.steps is not None:
        raise RecipeError(
            f"epochs changes nothing while steps is {recipe.steps}: search steps instead, or set steps to null."
        )


def _number(text: str) -> int | float:
    value = json.loads(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(text)
    return value


def _item(text: str) -> Any:
    try:
        return _number(text)
    except ValueError:
        return {"true": True, "false": False}.get(text, text)
