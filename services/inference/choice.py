"""Which engine answers for base and adapters: vLLM where there is a GPU for it, Unsloth everywhere else."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from services.inference.vllm.room import Card
from shared.weights import LEAST_CAPABILITY, NAMES, WrongForm, kept_as

Name = Literal["vllm", "unsloth"]
SERVED = ("mxfp4", "bf16")
GIB = 1 << 30


class Impossible(RuntimeError):
    """The engine that was asked for cannot serve here; the message says why and what to do."""


@dataclass(frozen=True)
class Choice:
    """The engine, and a sentence that says why it is taken."""

    engine: Name
    why: str


def choose(
    asked: Literal["auto", "vllm", "unsloth"],
    config: dict[str, Any],
    *,
    installed: bool,
    card: Card | None,
    needed: int,
) -> Choice:
    """The engine for a checkpoint with this `config.json`, of which vLLM would need so many bytes of the GPU.

    Raises Impossible where vLLM is asked for and cannot be."""
    if asked == "unsloth":
        return Choice("unsloth", "TANDEM_ENGINE says so.")
    against = _against_vllm(config, installed, card, needed)
    if against and asked == "vllm":
        raise Impossible(f"TANDEM_ENGINE is vllm, but {against} With TANDEM_ENGINE=auto, Unsloth would answer.")
    if against:
        return Choice("unsloth", f"No vLLM: {against}")
    return Choice("vllm", "TANDEM_ENGINE says so." if asked == "vllm" else "There is a GPU for it, with room.")


def _against_vllm(config: dict[str, Any], installed: bool, card: Card | None, needed: int) -> str | None:
    if not installed:
        return "the package vllm is not installed (requirements/vllm.txt)."
    if card is None:
        return "there is no CUDA GPU."
    if card.capability < LEAST_CAPABILITY:
        return "it needs compute capability {}.{}, and this GPU has {}.{}.".format(*LEAST_CAPABILITY, *card.capability)
    if config.get("model_type") != "gpt_oss":
        return f"the base model is of type {config.get('model_type')!r}, and only gpt_oss is served so."
    try:
        form = kept_as(config)
    except WrongForm:
        form = None
    if form not in SERVED:
        kept = NAMES[form] if form else "a form of its own"
        return f"the checkpoint is in {kept}; it serves MXFP4 and bf16. Set TANDEM_BASE_MODEL to openai/gpt-oss-20b."
    if card.free is not None and needed > card.free:
        return (
            f"it needs {needed / GIB:.1f} GiB of the GPU and {card.free / GIB:.1f} GiB are free. Free some, or lower "
            "TANDEM_CACHED_TOKENS or TANDEM_CONTEXT_TOKENS."
        )
    return None


def installed() -> bool:
    """Whether vLLM can be imported."""
    return find_spec("vllm") is not None
