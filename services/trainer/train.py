"""Train an adapter: load, attach LoRA, render and mask, train, prove, publish.

python -m services.trainer.train RUN_ID
torchrun --standalone --nproc-per-node 2 -m services.trainer.train RUN_ID    on two GPUs
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import Trainer

from services.trainer import attention, proof
from services.trainer.child import Context, Refused, Stopped, main
from services.trainer.curve import Curve, last_whole_checkpoint, whole_checkpoints
from services.trainer.data import render
from services.trainer.footprint import Footprint
from services.trainer.methods import build_trainer
from services.trainer.model import attach_lora, choose_form, load_base, trainable
from services.trainer.packing import pack
from services.trainer.shard import place, shard
from shared import hub, registry, runs
from shared.schemas import AdapterCard, Recipe


def train(context: Context) -> None:
    recipe = recipe_now(context)
    folder = hub.snapshot(recipe.base_model, recipe.revision, context.settings.hf_home)
    choice = choose_form(folder, recipe.precision)
    encoder = hub.encoder(folder)
    train_set, validation_set, counts = render(context, recipe, encoder)
    context.event("data", **counts)
    context.log(
        f"{counts['train']['examples']} examples with {counts['train']['supervised_tokens']:,} supervised tokens of "
        f"{counts['train']['tokens']:,}; {counts['validation']['examples']} kept for validation."
    )
    proof.show_first_example(context, train_set, encoder)
    rows = pack(train_set, recipe.max_length) if recipe.packing else train_set
    if recipe.packing:
        share = counts["train"]["tokens"] / (len(rows) * recipe.max_length)
        context.event("packed", rows=len(rows), filled=round(share, 4))
        context.log(f"Packed {len(train_set)} examples into {len(rows)} rows, which they fill to {share:.0%}.")

    footprint = Footprint(context, recipe, folder, choice, counts["train"]["longest"])
    recipe = footprint.recipe

    context.check()
    context.log(f"Loading {recipe.base_model} at {hub.commit(folder)[:12]}.")
    model, tokenizer = load_base(
        context,
        recipe.base_model,
        recipe.revision,
        recipe.max_length,
        recipe.precision,
        offload_embedding=recipe.offload_embedding,
        shards=footprint.shards,
    )
    footprint.mark("weights")
    model = attach_lora(model, recipe)
    footprint.mark("adapter")
    attention.install(model)
    if footprint.shards > 1:
        kept, layers = shard(model, footprint.shards)
        context.event("sharded", kept=kept, layers=layers)
        context.log(f"This GPU keeps {kept / 1e6:,.1f} MB of the {layers / 1e6:,.1f} MB of the base's layers.")
        footprint.mark("weights")
        place(model)
        footprint.mark("adapter")
    kinds = trainable(model, recipe)
    context.event("trainable", **kinds)
    context.log(
        "Trainable parameters: " + ", ".join(f"{kind} {value['parameters']:,}" for kind, value in kinds.items()) + "."
    )

    context.check()
    curve = Curve(context, recipe, len(rows), counts["train"]["tokens"])
    trainer = build_trainer(context, recipe, model, rows, validation_set, tokenizer, curve)
    checkpoint = last_whole_checkpoint(context.folder / "checkpoints")
    if checkpoint:
        context.log(f"Going on from {checkpoint.name}.")
    began = time.monotonic()
    footprint.begin()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if context.stopping and trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    if len(validation_set) and (recipe.keep_best or curve.validated_at != trainer.state.global_step):
        trainer.evaluate()
    held_out = validation_set if len(validation_set) else train_set
    if context.rank:
        if footprint.shards > 1:
            proof.after_training(model, held_out)  # rank 0 needs its part of the weights for its own
        return
    if runs.stop_requested(context.store, context.spec.id):
        take_best(context, model, trainer, curve)
    took = footprint.report(trainer.optimizer)
    validation_loss = curve.validation_loss

    context.log("Proving that the adapter is applied and that answers moved.")
    measured = proof.after_training(model, held_out)
    measured |= {"trainable": kinds, "data": counts, "stopped_early": curve.stopped_because, "memory": took}
    context.event("proof", **measured)

    card = publish(context, recipe, model, folder, trainer, validation_loss, measured)
    early = f"Stopped early. {curve.stopped_because}" if curve.stopped_because else None
    context.event("published", name=card.reference, seconds=round(time.monotonic() - began, 1), reason=early)


def recipe_now(context: Context) -> Recipe:
    """The run's recipe, with the GPUs that it has and the micro batch that is left after attempts that ran out of memory."""
    assert context.spec.recipe is not None
    changes: dict[str, Any] = {"gpus": context.ranks}
    for event in runs.all_events(context.store, context.spec.id, "halved"):
        changes |= {"batch_size": event["batch_size"], "accumulation": event["accumulation"], "fill_memory": False}
    return context.spec.recipe.model_copy(update=changes)


def take_best(context: Context, model: Any, trainer: Trainer, curve: Curve) -> None:
    """Go back to the checkpoint with the lowest validation loss if an earlier one than the last has it."""
    losses = {
        e["step"]: e["validation_loss"]
        for e in runs.all_events(context.store, context.spec.id, "metric")
        if "validation_loss" in e
    }
    whole = {int(path.name.rpartition("-")[2]): path for path in whole_checkpoints(context.folder / "checkpoints")}
    kept = [step for step in losses if step in whole and step <= trainer.state.global_step]
    best = min(kept, key=lambda step: losses[step], default=None)
    if best is None or losses[best] >= (curve.validation_loss or math.inf):
        return
    model.load_adapter(str(whole[best]), model.active_adapter, is_trainable=True)
    curve.validation_loss = losses[best]
    curve.stopped_because = (
        f"{curve.stopped_because} Took the checkpoint of step {best}, whose validation loss is the lowest."
    )
    context.log(f"Went back to the checkpoint of step {best}: its validation loss {losses[best]:.3f} is the lowest.")


def publish(
    context: Context,
    recipe: Recipe,
    model: Any,
    folder: Path,
    trainer: Trainer,
    validation_loss: float | None,
    measured: dict,
) -> AdapterCard:
    """Save the adapter, name its base by repository and commit, and publish it as the next version."""
    dataset = registry.dataset_card(context.store, str(context.spec.job.dataset))
    losses = [e["loss"] for e in runs.all_events(context.store, context.spec.id, "metric") if "loss" in e]
    if not losses:
        raise Refused("No loss was recorded, so there is nothing to judge the adapter by.")
    with context.store.staging(context.store.adapters()) as staged:
        model.save_pretrained(str(staged))
        config = json.loads((staged / "adapter_config.json").read_text())
        config |= {"base_model_name_or_path": recipe.base_model, "revision": hub.commit(folder), "inference_mode": True}
        (staged / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        weights = staged / "adapter_model.safetensors"
        return registry.publish_adapter(
            context.store,
            staged,
            {
                "name": context.spec.job.name,
                "run": context.spec.id,
                "base_model": recipe.base_model,
                "base_revision": hub.commit(folder),
                "dataset": dataset["reference"],
                "dataset_sha256": dataset["sha256"],
                "recipe": context.spec.job.recipe,
                "values": recipe.model_dump(),
                "sha256": registry.sha256(weights),
                "bytes": weights.stat().st_size,
                "steps": trainer.state.global_step,
                "loss_first": losses[0],
                "loss_last": losses[-1],
                "validation_loss": validation_loss,
                "proof": measured,
            },
        )


if __name__ == "__main__":
    main(train)
