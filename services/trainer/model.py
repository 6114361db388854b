"""The base model and its adapter, through Unsloth, on a GPU and on a CPU alike."""

import services.trainer.unsloth_first  # noqa: F401, I001

import json
from pathlib import Path
from typing import Any

import torch
from unsloth import FastLanguageModel

from services.trainer.child import Context, Refused
from services.trainer.room import wait_for_room
from shared import hub
from shared.schemas import Recipe
from shared.weights import Choice, choose

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ROUTER = "mlp.router.weight"


def choose_form(folder: Path, precision: str) -> Choice:
    """The form in which the base in `folder` goes into this machine's memory, and why. Raises WrongForm."""
    config = json.loads((folder / "config.json").read_bytes())
    if not torch.cuda.is_available():
        return choose(config, precision, on_gpu=False)
    parameters, memory = hub.parameters(folder)[0], torch.cuda.get_device_properties(0).total_memory
    capability = torch.cuda.get_device_capability()
    return choose(config, precision, on_gpu=True, capability=capability, parameters=parameters, memory=memory)


def load_base(
    context: Context,
    repository: str,
    revision: str,
    max_length: int,
    precision: str = "auto",
    *,
    offload_embedding: bool = False,
    shards: int = 1,
) -> tuple[Any, Any]:
    """The frozen base model from the cache, and its tokenizer. One that is to be sharded is left in the machine's memory,
    unless it is NF4, which is made on a GPU. Raises WrongForm.

    The folder is passed to Unsloth, not the name: for some names it would load another repository in its place."""
    folder = hub.snapshot(repository, revision, context.settings.hf_home)
    form = choose_form(folder, precision).form
    wait_for_room(context)
    cuda = torch.cuda.is_available()
    _recompute_as_alone()
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=max_length,
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16}.get(form),
        # A checkpoint in MXFP4 is kept so by this; one in 16 bits becomes NF4 while it loads.
        load_in_4bit=cuda and form in ("mxfp4", "nf4"),
        offload_embedding=offload_embedding and cuda and shards == 1,
        **({"device_map": "cpu"} if shards > 1 and form != "nf4" else {}),  # left out, it is Unsloth's own choice
        local_files_only=True,
    )
    model.config.output_router_logits = False  # else the routers' balancing loss is added to the curve
    return model, tokenizer


def _recompute_as_alone() -> None:
    """Have Unsloth compute activations anew with several ranks as it does with one. For the sake of other models it takes
    PyTorch's other way there (https://github.com/unslothai/unsloth/issues/3713), which held on to them: 62 GiB after the first
    step where one GPU needs 21, and more with each. DDP can be had with this way where a pass uses each parameter once."""
    if torch.cuda.is_available():
        from unsloth.models import vision

        vision.vlm_gradient_checkpointing_reentrant = lambda: True


def attach_lora(model: Any, recipe: Recipe) -> Any:
    """Wrap the base in a fresh adapter that reaches attention, the experts and the router, as the recipe wants."""
    parameters = EXPERTS * recipe.train_experts + [ROUTER] * recipe.train_router
    return FastLanguageModel.get_peft_model(
        model,
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        use_rslora=recipe.rslora,
        bias="none",
        target_modules=ATTENTION if recipe.train_attention else [],
        # Named outright: on fused checkpoints "all-linear" leaves the experts out
        # (https://github.com/unslothai/unsloth/issues/3405).
        target_parameters=parameters or None,
        use_gradient_checkpointing="unsloth" if recipe.gradient_checkpointing else False,
        random_state=recipe.seed,
    )


def trainable(model: Any, recipe: Recipe) -> dict[str, dict[str, int]]:
    """Trainable tensors by part: {"attention": {"tensors", "parameters"}, "experts": …, "router": …}.

    Raises Refused when a part that the recipe trains has none."""
    wanted = {"attention": recipe.train_attention, "experts": recipe.train_experts, "router": recipe.train_router}
    kinds = {kind: {"tensors": 0, "parameters": 0} for kind in wanted}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = kinds[part(name)]
            kind["tensors"] += 1
            kind["parameters"] += parameter.numel()
    for kind, on in wanted.items():
        if on and not kinds[kind]["tensors"]:
            raise Refused(f"The recipe trains the {kind}, but no tensor of it is trainable in this checkpoint.")
    return kinds


def part(name: str) -> str:
    """The part of the model that a tensor of the adapter belongs to: "attention", "experts" or "router"."""
    return next((kind for kind in ("experts", "router") if f".{kind}." in name), "attention")


def load_adapter(model: Any, folder: Path) -> Any:
    """The base with a published adapter on it, ready to answer."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()


def lora_norms(model: Any) -> dict[str, dict[str, float]]:
    """The Frobenius norms of the adapter's A and B matrices, each taken together, by kind: {"attention": {"A", "B"},
    "experts": …}. B starts at zero. A kind that has no matrix is left out."""
    squares: dict[str, dict[str, float]] = {}
    for name, parameter in model.named_parameters():
        for side in ("A", "B"):
            if f"lora_{side}" in name:
                kind = squares.setdefault(part(name), {"A": 0.0, "B": 0.0})
                kind[side] += float(parameter.detach().double().pow(2).sum())
    return {kind: {side: value**0.5 for side, value in sides.items()} for kind, sides in squares.items()}
