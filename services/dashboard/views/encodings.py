"""The forms of an export in a person's words: what each is for, how large it will be, and what its agreement means."""

from typing import Any

from shared import hub
from shared.schemas import ENCODINGS, Encoding
from shared.settings import Settings
from shared.store import NotFound

ABOUT: dict[Encoding, str] = {
    "MXFP4": "Experts in 4 bits, as gpt-oss was published. The one to begin with.",
    "Q4_K_S": "llama.cpp's leanest 4-bit mixture. Most of gpt-oss-20b falls back to 5 bits in it.",
    "Q4_K_M": "llama.cpp's usual 4-bit mixture. Most of gpt-oss-20b falls back to 5 bits in it, some to 8.",
    "Q5_K_M": "llama.cpp's 5-bit mixture. Most of gpt-oss-20b falls back to blocks of 32 in it, which come to 6.5 bits a weight.",
    "Q6_K": "llama.cpp's 6 bits. Nearly all of gpt-oss-20b falls back to 8 bits in it, so Q8_0 is the same under its own name.",
    "Q8_0": "Everything in 8 bits. Nearly exact.",
    "F16": "Everything in 16 bits. The closest to the adapter, to compare the others with.",
    "LoRA": "The adapter alone, for llama-server --lora over a GGUF of the same base. Not served here by itself.",
    "merged": "A folder of 16-bit weights for vLLM, transformers and further training. No GGUF.",
}
TOKENIZER_BYTES = 13 << 20  # of the vocabulary and merges that a GGUF file carries
# Bits of the experts' weights and of the others in gpt-oss-20b, whose rows of 2,880 are no multiple of a K-quant's 256.
BITS = {
    "MXFP4": (4.25, 8.6),
    "Q4_K_S": (5.52, 6.4),
    "Q4_K_M": (6.0, 6.5),
    "Q5_K_M": (6.42, 6.9),
    "Q6_K": (8.5, 8.3),
    "Q8_0": (8.5, 8.6),
    "F16": (16.0, 16.0),
    "merged": (16.0, 16.0),
}


def choices(settings: Settings, adapter_bytes: int) -> list[dict[str, Any]]:
    """Each encoding with what it is for and its estimated size in bytes, None while the base is not in the cache."""
    return [
        {
            "name": name,
            "about": ABOUT[name],
            "bytes": adapter_bytes if name == "LoRA" else _estimate(settings, name),
        }
        for name in ENCODINGS
    ]


def _estimate(settings: Settings, encoding: Encoding) -> int | None:
    try:
        total, experts = hub.parameters(hub.snapshot(settings.base_model, "main", settings.hf_home))
    except NotFound:
        return None
    return estimated_bytes(encoding, total, experts)


def estimated_bytes(encoding: Encoding, total: int, experts: int) -> int:
    """Size of an export of a base with `total` parameters, of which `experts` are the experts' weights."""
    in_experts, elsewhere = BITS[encoding]
    weights = (experts * in_experts + (total - experts) * elsewhere) / 8
    return round(weights) + (0 if encoding == "merged" else TOKENIZER_BYTES)


def agreement(parity: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured of an export against its adapter, as (figure, sentence); empty if it was not measured."""
    told: list[tuple[str, str]] = []
    if "top1" in parity:
        told.append((f"{100 * parity['top1']:.1f} %", _top1(parity)))
    if "exact_answers" in parity:
        told.append((f"{100 * parity['exact_answers']:.0f} %", "of the answers are the same, token for token."))
    if "cosine" in parity:
        told.append((f"{parity['cosine']:.4f}", "likeness of the probabilities of the next token; 1 is the same."))
    if "kl" in parity:
        told.append((f"{parity['kl']:.4f}", "nats that the probabilities are apart (KL divergence); 0 is the same."))
    if "prompt_tokens_equal" in parity:
        same = parity["prompt_tokens_equal"]
        told.append(("same" if same else "differ", "tokens of the prompts, so the model reads what the adapter reads."))
    return told


def speed(parity: dict[str, Any]) -> str | None:
    """What llama.cpp did in a second while it was compared; None for what llama.cpp did not read."""
    if not (measured := parity.get("speed")):
        return None
    read, answered = measured["prompt"], measured["decode"]
    return f"{read:,.0f} tokens a second read, {answered:,.0f} answered, by llama.cpp on {measured['device']}"


def _top1(parity: dict[str, Any]) -> str:
    where = f" at {parity['tokens']:,} places in {parity['prompts']} answers" if "tokens" in parity else ""
    return f"of the time the likeliest next token is the adapter's{where}."
