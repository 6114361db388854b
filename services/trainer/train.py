"""Train an adapter: load, attach LoRA, render and mask, train, prove, publish.

python -m services.trainer.train RUN_ID
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PrinterCallback
from trl import SFTConfig, SFTTrainer

from services.trainer import proof
from services.trainer.child import Context, Refused, Stopped, main
from services.trainer.curve import Curve, last_whole_checkpoint, whole_checkpoints
from services.trainer.data import render
from services.trainer.model import attach_lora, load_base, trainable
from shared import estimate, hub, registry, runs
from shared.schemas import AdapterCard, Recipe


def train(context: Context) -> None:
    recipe = context.spec.recipe
    assert recipe is not None

    folder = hub.snapshot(recipe.base_model, recipe.revision, context.settings.hf_home)
    encoder = hub.encoder(folder)
    train_set, validation_set, counts = render(context, recipe, encoder)
    context.event("data", **counts)
    context.log(
        f"{counts['train']['examples']} examples with {counts['train']['supervised_tokens']:,} supervised tokens of "
        f"{counts['train']['tokens']:,}; {counts['validation']['examples']} kept for validation."
    )
    proof.show_first_example(context, train_set, encoder)

    context.check()
    context.log(f"Loading {recipe.base_model} at {hub.commit(folder)[:12]}.")
    model, tokenizer = load_base(context, recipe.base_model, recipe.revision, recipe.max_length, recipe.precision)
    model = attach_lora(model, recipe)
    kinds = trainable(model, recipe)
    context.event("trainable", **kinds)
    context.log(
        "Trainable parameters: " + ", ".join(f"{kind} {value['parameters']:,}" for kind, value in kinds.items()) + "."
    )

    context.check()
    curve = Curve(context, recipe, counts["train"]["tokens"] / len(train_set) * recipe.batch_size * recipe.accumulation)
    trainer = build_trainer(context, recipe, model, train_set, validation_set, tokenizer, curve)
    checkpoint = last_whole_checkpoint(context.folder / "checkpoints")
    if checkpoint:
        context.log(f"Going on from {checkpoint.name}.")
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if context.stopping and trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    if len(validation_set) and (recipe.keep_best or curve.validated_at != trainer.state.global_step):
        trainer.evaluate()
    if runs.stop_requested(context.store, context.spec.id):
        take_best(context, model, trainer, curve)
    validation_loss = curve.validation_loss

    context.log("Proving that the adapter is applied and that answers moved.")
    measured = proof.after_training(model, validation_set if len(validation_set) else train_set)
    measured |= {"trainable": kinds, "data": counts, "stopped_early": curve.stopped_because}
    context.event("proof", **measured)

    card = publish(context, recipe, model, folder, trainer, validation_loss, measured)
    early = f"Stopped early. {curve.stopped_because}" if curve.stopped_because else None
    context.event("published", name=card.reference, seconds=round(time.monotonic() - began, 1), reason=early)


def take_best(context: Context, model: Any, trainer: SFTTrainer, curve: Curve) -> None:
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


def build_trainer(
    context: Context,
    recipe: Recipe,
    model: Any,
    train_set: Dataset,
    validation_set: Dataset,
    tokenizer: Any,
    curve: Curve,
) -> SFTTrainer:
    """TRL's trainer over the rendered examples, with the recipe's values in its words."""
    steps = estimate.steps(recipe, len(train_set))
    validate_every = recipe.evaluate_every if len(validation_set) else None
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(
        context.folder / "tensorboard"
    )  # transformers 5 takes it from here alone
    arguments = SFTConfig(
        output_dir=str(context.folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.scheduler,
        lr_scheduler_kwargs={"min_lr": recipe.min_learning_rate} if recipe.scheduler == "cosine_with_min_lr" else {},
        warmup_steps=round(recipe.warmup * steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim=optimizer(recipe),
        bf16=torch.cuda.is_available(),
        seed=recipe.seed,
        data_seed=recipe.seed,
        max_length=recipe.max_length,
        packing=False,
        train_sampling_strategy="group_by_length" if recipe.packing else "random",
        router_aux_loss_coef=0.0,  # else the routers' balancing loss is added to what is minimised and shown
        gradient_checkpointing=recipe.gradient_checkpointing,
        logging_steps=recipe.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validate_every else "no",
        eval_steps=validate_every,
        save_strategy="steps",
        save_steps=recipe.save_every or max(1, steps // 4),
        save_total_limit=recipe.keep_checkpoints,
        load_best_model_at_end=recipe.keep_best and bool(validate_every),
        metric_for_best_model="eval_loss" if recipe.keep_best and validate_every else None,
        greater_is_better=False,
        prediction_loss_only=True,
        report_to=recipe.report_to or [],
        run_name=context.spec.id,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=validation_set if len(validation_set) else None,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8),
        callbacks=[curve],
    )
    trainer.remove_callback(PrinterCallback)  # the events have the curve; log.txt is for what people read
    return trainer


def optimizer(recipe: Recipe) -> str:
    """The recipe's optimizer, or AdamW where there is no GPU for its 8-bit form."""
    return "adamw_torch" if recipe.optimizer == "adamw_8bit" and not torch.cuda.is_available() else recipe.optimizer


def publish(
    context: Context,
    recipe: Recipe,
    model: Any,
    folder: Path,
    trainer: SFTTrainer,
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
