"""A new training run: every value of its recipe, with what each is for and how far it goes."""

from typing import Any

from flask import render_template, request

from services.dashboard.api import recipes as recipe_views
from services.dashboard.context import here, store
from services.dashboard.pages.runs import blueprint
from shared import recipes, registry, runs
from shared.schemas import DataKind, Method
from shared.store import NotFound

TINY = "tandem/tiny-gpt-oss"
GROUPS: dict[str, tuple[str, ...]] = {
    "Adapter": (
        "lora_rank", "lora_alpha", "lora_dropout", "rslora", "train_attention", "train_experts", "train_router",
        "base_model", "revision",
    ),
    "Data": ("max_length", "supervise", "method", "dpo_beta", "reasoning_effort", "validation_share", "packing"),
    "Steps and batch": ("steps", "epochs", "batch_size", "accumulation", "gpus", "seed"),
    "Learning rate": (
        "learning_rate", "scheduler", "min_learning_rate", "warmup", "weight_decay", "max_grad_norm", "optimizer",
    ),
    "Validation and stopping": (
        "evaluate_every", "target_loss", "keep_best", "patience", "patience_threshold", "overfit_below", "save_every",
        "keep_checkpoints",
    ),
    "Memory": ("precision", "gradient_checkpointing", "fill_memory", "offload_embedding", "shard"),
    "Tracking": ("log_every", "report_to"),
}  # fmt: skip
BASIC = {
    "lora_rank", "lora_alpha", "max_length", "supervise", "validation_share", "steps", "epochs", "batch_size",
    "accumulation", "learning_rate", "scheduler", "evaluate_every", "target_loss", "keep_best", "gradient_checkpointing",
}  # fmt: skip
USED_BY: dict[str, tuple[Method, ...]] = {  # the methods of values that the others do without; `method` is the recipe's
    "supervise": ("sft",), "reasoning_effort": ("sft", "dpo"), "dpo_beta": ("dpo",), "packing": ("sft", "text"), "method": (),
}  # fmt: skip
LABELS = {"lora_rank": "LoRA rank", "lora_alpha": "LoRA alpha", "lora_dropout": "LoRA dropout", "rslora": "Rank-stabilized",
          "dpo_beta": "DPO beta", "report_to": "Trackers", "max_length": "Longest example", "max_grad_norm": "Longest gradient",
          "evaluate_every": "Validate every", "save_every": "Checkpoint every", "log_every": "Point every", "gpus": "GPUs",
          "overfit_below": "Warn of overfitting below"}  # fmt: skip


@blueprint.get("/new")
def new() -> str:
    """The form; `dataset`, `recipe` and `from` (a run to start from) of the address fill it."""
    parent = _parent(request.args.get("from", ""))
    job = parent["job"] if parent else {}
    cards = registry.datasets(store())
    wanted = request.args.get("dataset") or job.get("dataset") or ""
    chosen = next(
        (c for c in cards if wanted in (c["reference"], c["name"])), cards[0] if cards and not wanted else None
    )
    kind = chosen["kind"] if chosen else "conversations"
    recipe = recipe_for(kind, request.args.get("recipe") or job.get("recipe"))
    return render_template(
        "runs/new.html",
        datasets=cards,
        dataset=chosen,
        missing=wanted if wanted and not chosen else None,
        recipes=[
            recipe_views.view(name) for name in sorted(recipes.names(), key=lambda name: name != default_recipe(kind))
        ],
        recipe=recipe,
        default_recipe=default_recipe,
        method_for={kind: method for method, kind in recipes.LEARNS_FROM.items()},
        overrides=job.get("overrides", {}),
        name=job.get("name") or (chosen["name"] if chosen else ""),
        parent=parent,
        groups=GROUPS,
        basic=BASIC,
        used_by=USED_BY,
        fields=recipe_views.fields(),
        label=label,
        labelled=LABELS,
        next_versions=_next_versions(),
        base_model=here().settings.base_model,
        no_trainer="trainer" in here().watch.latest().troubles,
    )


def default_recipe(kind: DataKind = "conversations") -> str:
    """The recipe to begin with for rows of a kind; for conversations that is `tiny` if the base is tiny."""
    tiny = here().settings.base_model == TINY and kind == "conversations"
    return "tiny" if tiny else recipes.FOR_KIND[kind]


def recipes_for(kind: DataKind) -> list[str]:
    """The recipes that learn from rows of a kind."""
    return [name for name in recipes.names() if recipes.LEARNS_FROM[recipes.resolve(name).method] == kind]


def recipe_for(kind: DataKind, wanted: str | None) -> str:
    """The recipe that is wanted if it learns from rows of the kind, or else the one to begin with."""
    return wanted if wanted in recipes_for(kind) else default_recipe(kind)


def label(name: str) -> str:
    """A value's name in words: `batch_size` -> `Batch size`."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def _parent(run_id: str) -> dict[str, Any] | None:
    """The spec of the run to start from; None if it is not there or did not train."""
    if not run_id:
        return None
    try:
        spec = runs.read_spec(store(), run_id)
    except (NotFound, ValueError):
        return None
    return spec.model_dump(mode="json") if spec.kind == "train" else None


def _next_versions() -> dict[str, int]:
    """The version that the next adapter of each name becomes."""
    latest: dict[str, int] = {}
    for path in store().adapters().glob("[!.]*/v*"):
        if path.name[1:].isdigit():
            latest[path.parent.name] = max(latest.get(path.parent.name, 0), int(path.name[1:]))
    return {name: number + 1 for name, number in latest.items()}
