"""Random gpt-oss checkpoints of real shapes, and random adapters of any of them.

python -m tests.checkpoints FOLDER FOLDER_WITH_A_TOKENIZER
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM

from services.trainer.tiny import CONFIG

WIDE = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
MORE = {"num_local_experts": 8, "num_experts_per_tok": 4, "sliding_window": 128}
BLOCK = 32  # weights that share a scale
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def mxfp4(folder: Path, tokenizer: Path, layers: int = 2) -> Path:
    """A checkpoint in MXFP4 with gpt-oss-20b's widths, few layers and few experts; all parameters random, 2.6 GB.

    Its experts are random bytes: any byte is two weights of E2M1, any scale a power of two, 2 ** (scale - 127)."""
    config = GptOssConfig(**{**CONFIG, **WIDE, **MORE, "num_hidden_layers": layers}, dtype="bfloat16")
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in GptOssForCausalLM(config).named_parameters()}
    torch.manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, into, out = shape
            blocks = (experts, out, into // BLOCK)
            tensors[f"{name}_blocks"] = torch.randint(0, 256, (*blocks, BLOCK // 2), dtype=torch.uint8)
            tensors[f"{name}_scales"] = torch.randint(118, 121, blocks, dtype=torch.uint8)
        elif "norm" in name:
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            spread = 1.0 if "embed" in name else shape[-1] ** -0.5 if len(shape) > 1 else 0.1
            tensors[name] = (torch.randn(shape) * spread).bfloat16()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    told = config.to_dict() | {"architectures": ["GptOssForCausalLM"]}
    told["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    (folder / "config.json").write_text(json.dumps(told, indent=2))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    return folder


def adapter(
    folder: Path, base: Path, *, rank: int = 8, experts: bool = True, seed: int = 0, strength: float = 1.0
) -> Path:
    """A random LoRA as PEFT saves it, on attention and, with `experts`, on the experts' fused parameters."""
    config = GptOssConfig.from_pretrained(base)
    config.quantization_config = None
    del config.quantization_config
    with torch.device("meta"):
        model = GptOssForCausalLM(config)
    targets = EXPERTS if experts else None
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ATTENTION, target_parameters=targets)
    tuned = get_peft_model(model, lora, low_cpu_mem_usage=True)
    torch.manual_seed(seed)
    weights = {}
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            into = parameter.shape[-1] if "lora_A" in name else rank
            weights[name.replace(".default", "")] = torch.randn(parameter.shape) * strength * into**-0.5
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    lora.base_model_name_or_path = str(base)
    tuned.peft_config["default"].save_pretrained(folder)
    return folder


if __name__ == "__main__":
    mxfp4(Path(sys.argv[1]), Path(sys.argv[2]))
