"""Recipes: named defaults for a run, and the fields that a form is made of."""

from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import BaseModel

from services.dashboard.api.models import RecipePage, RecipeText
from services.dashboard.api.paging import Paging, page
from services.dashboard.errors import problem
from shared import recipes
from shared.schemas import Recipe
from shared.store import NotFound

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "items")
api = APIBlueprint("recipes", __name__, url_prefix="/api/recipes")


class RecipePath(BaseModel):
    name: str


@api.get("", responses={200: RecipePage, **problem()})
def list_recipes(query: Paging) -> dict[str, Any]:
    """Every recipe with all its values, and what is known of each value."""
    return {**page([view(name) for name in recipes.names()], query), "fields": fields()}


@api.get("/<name>", responses={200: RecipeText, **problem(404)})
def read_recipe(path: RecipePath) -> dict[str, Any]:
    """A recipe, and its file with the comments."""
    if path.name not in recipes.names():
        raise NotFound(f"There is no recipe {path.name!r}. There are: {', '.join(recipes.names())}.")
    return {**view(path.name), "yaml": recipes.text(path.name)}


def view(name: str) -> dict[str, Any]:
    values = recipes.resolve(name).model_dump(mode="json")
    return {"name": name, "about": values.pop("about"), "values": values}


def fields() -> dict[str, dict[str, Any]]:
    """Type, description, bounds and default of each value, from the JSON schema of Recipe."""
    known = Recipe.model_json_schema()["properties"]
    defaults = {name: field.get_default(call_default_factory=True) for name, field in Recipe.model_fields.items()}
    return {name: _field(schema, defaults[name]) for name, schema in known.items() if name != "about"}


def _field(schema: dict[str, Any], default: Any) -> dict[str, Any]:
    forms = schema.get("anyOf", [schema])
    form = next(form for form in forms if form.get("type") != "null")
    bounds = {key: form[key] for key in BOUNDS if key in form}
    if len(forms) > 1:
        bounds["nullable"] = True
    return {"type": form["type"], "description": schema["description"], "bounds": bounds, "default": default}
