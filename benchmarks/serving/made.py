"""What is made of a checkpoint: random adapters as a registry has them, and a GGUF file.

python -m benchmarks.serving.made adapters CHECKPOINT DATA
python -m benchmarks.serving.made gguf CHECKPOINT OUT
"""

import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.serving.speed import ADAPTERS, RANK
from services.trainer.gguf import write_gguf
from shared import recipes, registry
from shared.store import Store

NUDGE = 0.015  # of B: an adapter changes weights by an eighth, which moves answers well beyond what rounding does
MADE_AT_ONCE = 4


def adapters(checkpoint: Path, data: Path) -> None:
    """Publish random adapters of attention and experts, those that are not there yet."""
    store = Store(data)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    )
    shapes = layout(checkpoint, config)
    config.base_model_name_or_path, config.inference_mode = str(checkpoint), True
    known = {card.name for card in registry.adapters(store)}
    wanted = [name for name in ADAPTERS if name not in known]
    with ThreadPoolExecutor(MADE_AT_ONCE) as pool:
        list(pool.map(lambda name: publish(store, config, shapes, name), wanted))


def layout(checkpoint: Path, config: LoraConfig) -> dict[str, torch.Size]:
    """The tensors of an adapter as PEFT saves it: the model is built without its weights."""
    base = AutoConfig.from_pretrained(checkpoint)
    if hasattr(base, "quantization_config"):
        del base.quantization_config
    with torch.device("meta"):
        tuned = get_peft_model(AutoModelForCausalLM.from_config(base), config)
    return {name: tensor.shape for name, tensor in get_peft_model_state_dict(tuned).items()}


def publish(store: Store, config: LoraConfig, shapes: dict[str, torch.Size], name: str) -> None:
    """An adapter of random weights that follow from its name."""
    noise = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    tensors = {}
    for tensor, shape in shapes.items():
        scale = NUDGE if "lora_B" in tensor else shape[1] ** -0.5
        tensors[tensor] = torch.randn(shape, generator=noise, dtype=torch.bfloat16) * scale
    with store.staging(store.adapters()) as staged:
        save_file(tensors, staged / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(str(staged))
        weights = staged / "adapter_model.safetensors"
        registry.publish_adapter(
            store,
            staged,
            {
                "name": name,
                "run": "benchmark",
                "base_model": str(config.base_model_name_or_path),
                "base_revision": "main",
                "dataset": "none@0",
                "dataset_sha256": "0" * 64,
                "recipe": "standard",
                "values": recipes.resolve("standard", {"lora_rank": RANK, "lora_alpha": 2 * RANK}),
                "sha256": registry.sha256(weights),
                "bytes": weights.stat().st_size,
                "steps": 1,
                "loss_first": 0.0,
                "loss_last": 0.0,
                "proof": {},
            },
        )


if __name__ == "__main__":
    kind, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if kind == "adapters":
        adapters(source, target)
    else:
        write_gguf(source, target, "MXFP4", name=source.name)
