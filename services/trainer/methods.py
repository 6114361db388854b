"""TRL's trainer for a recipe: its values in TRL's words."""

import services.trainer.unsloth_first  # noqa: F401, I001

import os
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from services.trainer.attention import ROW
from services.trainer.child import Context
from services.trainer.curve import Curve
from services.trainer.order import in_order
from services.trainer.packing import Flat
from services.trainer.shard import data_parallel, is_sharded
from shared import estimate
from shared.schemas import Recipe


def build_trainer(
    context: Context,
    recipe: Recipe,
    model: Any,
    train_set: Dataset,
    validation_set: Dataset,
    tokenizer: Any,
    curve: Curve,
) -> Trainer:
    """TRL's trainer over the rendered examples, with the recipe's values in its words."""
    asked = context.spec.recipe or recipe
    steps = estimate.steps(recipe, len(train_set))
    validate_every = recipe.evaluate_every if len(validation_set) else None
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(
        context.folder / "tensorboard"
    )  # transformers 5 takes it from here alone
    dpo = recipe.method == "dpo"
    own = (
        {"beta": recipe.dpo_beta, "pad_to_multiple_of": ROW if torch.cuda.is_available() else 8}
        if dpo
        else {"packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}  # the rows come packed
    )
    arguments = (DPOConfig if dpo else SFTConfig)(
        output_dir=str(context.folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=asked.batch_size,
        gradient_accumulation_steps=recipe.accumulation // context.ranks,
        # PEFT's experts are one tensor each, so every trainable one has a gradient, whichever experts a batch meets
        ddp_find_unused_parameters=False,
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
        train_sampling_strategy="sequential",  # see order.py
        router_aux_loss_coef=0.0,  # else the routers' balancing loss is added to what is minimised and shown
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": True},  # Unsloth's, on a GPU
        logging_steps=1,  # the curve takes the mean of log_every steps itself, so that a resume knows those before it
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
        **own,
    )
    trainer = (PairTrainer if dpo else ExampleTrainer)(
        model=model,
        args=arguments,
        train_dataset=in_order(train_set, recipe, steps),
        eval_dataset=validation_set if len(validation_set) else None,
        processing_class=tokenizer,
        data_collator=None if dpo else Flat(tokenizer.pad_token_id, recipe.max_length),
        callbacks=[curve],
    )
    trainer.remove_callback(PrinterCallback)  # the events have the curve; log.txt is for what people read
    return trainer


class RankTrainer(Trainer):
    """What one of several ranks does otherwise than transformers' trainer has it."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Each rank validates on everything, in batches as large as were asked for, so that the loss depends neither on how
        many there are nor on the GPU's room. Shared out, the last batch would be filled up with examples seen already."""
        return DataLoader(
            eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size, collate_fn=self.data_collator
        )

    def _wrap_model(self, model: Any, training: bool = True, dataloader: DataLoader | None = None) -> Any:
        """On GPUs accelerate refuses DDP for a model with sharded weights, which here are none of DDP's business."""
        if training and model is self.model and is_sharded(model):
            return data_parallel(self.accelerator.prepare_model(model, evaluation_mode=True))
        return super()._wrap_model(model, training, dataloader)


class ExampleTrainer(RankTrainer, SFTTrainer):
    """TRL's trainer over examples that are token ids already."""


class PairTrainer(RankTrainer, DPOTrainer):
    """TRL's trainer over pairs that are token ids already; its reference is the model with the adapter off."""

    def __init__(self, model: Any, **given: Any) -> None:
        super().__init__(model=model, **given)
        # TRL copies a PEFT model's adapter as its reference. This one starts from zero, so the base alone is the same, and
        # the copy would be saved with each checkpoint.
        if "ref" in model.peft_config:
            model.delete_adapter("ref")

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def optimizer(recipe: Recipe) -> str:
    """The recipe's optimizer, or AdamW where there is no GPU for its 8-bit form."""
    return "adamw_torch" if recipe.optimizer == "adamw_8bit" and not torch.cuda.is_available() else recipe.optimizer
