"""A random LoRA on the tiny gpt-oss of the unit tests."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import GptOssForCausalLM

from tests.unit.tiny_gpt_oss import tiny

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.router.weight"]


def make_adapter(
    directory: Path,
    *,
    transposed: bool = True,
    parameters: list[str] = PARAMETERS,
    modules: list[str] = ATTENTION,
    rank: int = 4,
    seed: int = 3,
    **options: object,
) -> GptOssForCausalLM:
    """Save a random LoRA on `modules` and on `parameters` in `directory`; returns the merged model."""
    torch.manual_seed(seed)
    copy = GptOssForCausalLM(tiny().config).eval()
    copy.load_state_dict(tiny().state_dict())
    for block in copy.model.layers:
        block.mlp.experts.is_transposed = transposed
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=modules,
        target_parameters=parameters, **options,
    )  # fmt: skip
    tuned = get_peft_model(copy, config)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(directory)
    return tuned.merge_and_unload()
