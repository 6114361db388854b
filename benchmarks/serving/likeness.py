"""The proof that adapters are applied, experts included: the next token beside that of transformers and PEFT.

python -m benchmarks.serving.likeness CHECKPOINT ADAPTER VLLM.npz OURS.json

VLLM.npz is from `benchmarks.serving.bare`, OURS.json from `benchmarks.serving.ours`; one of them may be missing. The model is read
in fp32, its MXFP4 decoded: four bytes a parameter, so a GPU with 100 GiB for gpt-oss-20b. Prints lines of JSON, {"name", "value"}:
of bare vLLM the cosines of centred logits, of ours the distances of log-probabilities, the median of the prompts each. Where two
experts are nearly tied, as they often are in random weights, rounding chooses, and such a prompt says nothing of adapters.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config

from benchmarks.serving.speed import PROOF_PROMPTS, PROOF_TOKENS, prompts, tell
from services.inference.logprobs import Completion
from shared import hub
from shared.harmony import Encoder


def main(checkpoint: Path, adapter: Path, vllm: Path, ours: Path) -> None:
    model = load(checkpoint)
    base = next_tokens(model)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    whole = next_tokens(model)
    for name, parameter in model.named_parameters():
        if ".experts." in name and "lora_B" in name:
            parameter.data.zero_()
    attention = next_tokens(model)
    if vllm.exists():
        theirs = np.load(vllm)
        tell("base_cosine", cosine(theirs["base"], base))
        tell("adapter_cosine", cosine(theirs["adapter"], whole))
        tell("adapter_without_cosine", cosine(theirs["adapter"], base))
        tell("adapter_attention_cosine", cosine(theirs["adapter"], attention))
    if ours.exists():
        told, encoder = json.loads(ours.read_text()), hub.encoder(checkpoint)
        tell("base_nats", distance(told["base"], base, encoder))
        tell("adapter_nats", distance(told["adapter"], whole, encoder))
        tell("adapter_without_nats", distance(told["adapter"], base, encoder))


def load(checkpoint: Path) -> Any:
    """The base model in fp32, by transformers' plainest paths."""
    config = AutoConfig.from_pretrained(checkpoint)
    decoded = {"quantization_config": Mxfp4Config(dequantize=True)} if hasattr(config, "quantization_config") else {}
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.bfloat16,
        device_map="cuda" if torch.cuda.is_available() else "cpu",
        attn_implementation="eager",
        experts_implementation="eager",
        **decoded,
    )
    return model.float().eval()


@torch.inference_mode()
def next_tokens(model: Any) -> np.ndarray:
    """Logits after each prompt of the proof [prompts, vocabulary]."""
    ids = torch.tensor(prompts(PROOF_PROMPTS, PROOF_TOKENS, seed=0), device=model.device)
    return model(input_ids=ids, logits_to_keep=1).logits[:, -1].float().cpu().numpy()


def cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of logits or log-probabilities [prompts, vocabulary], each prompt's mean taken out, which all tokens share; the median."""
    ours, theirs = (values - values.mean(-1, keepdims=True) for values in (ours, theirs))
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return float(np.median((ours * theirs).sum(-1) / lengths))


def distance(told: list[dict[str, float]], logits: np.ndarray, encoder: Encoder) -> float:
    """Nats by which the log-probabilities of the tokens that `told` has for each prompt, by their text, are off on average."""
    off = []
    for ours, row in zip(told, torch.tensor(logits).log_softmax(-1).tolist(), strict=True):
        theirs = Completion(encoder).chunk([(0, 0.0, list(enumerate(row)))])["top_logprobs"][0]
        off.append(np.mean([abs(logprob - theirs[text]) for text, logprob in ours.items()]))
    return float(np.median(off))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
