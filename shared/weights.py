"""In which form a frozen base model goes into memory: by the checkpoint, the GPU and the recipe; and why.

MXFP4 trains 2.4 to 6 times as fast as NF4 and falls less with length (measured on an H200 with gpt-oss-20b), so it is taken
wherever its kernels run: on every GPU of compute capability 8.0 and up, an RTX 3090 among them.
"""

from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["mxfp4", "nf4", "bf16", "fp32"]
LEAST_CAPABILITY = (8, 0)
SPLIT = "unsloth/gpt-oss-20b-unsloth-bnb-4bit"  # NF4, each expert a matrix of its own
NAMES: dict[Form, str] = {"mxfp4": "MXFP4", "nf4": "NF4", "bf16": "bf16", "fp32": "fp32"}
BYTES: dict[Form, float] = {
    "mxfp4": 0.53125,
    "nf4": 0.5645,
    "bf16": 2.0,
    "fp32": 4.0,
}  # of a weight, with the scales of its blocks
SHARDED: tuple[Form, ...] = (
    "nf4",
    "bf16",
    "fp32",
)  # what FSDP2 shards are parameters, and MXFP4's packed weights are none


class WrongForm(ValueError):
    """The recipe's precision cannot be had from this checkpoint on this GPU; the message says what can."""


@dataclass(frozen=True)
class Choice:
    """The form, and a sentence that says why it is taken."""

    form: Form
    why: str


def kept_as(config: dict[str, Any]) -> Form:
    """The form that a checkpoint's `config.json` says its weights are in."""
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method in (None, "mxfp4", "bitsandbytes"):
        return {None: "bf16", "mxfp4": "mxfp4", "bitsandbytes": "nf4"}[method]  # type: ignore[return-value]
    raise WrongForm(
        f"The checkpoint is quantised by {method!r}; MXFP4, bitsandbytes' NF4 and 16-bit ones can be trained."
    )


def choose(
    config: dict[str, Any],
    precision: str,
    *,
    on_gpu: bool,
    capability: tuple[int, int] | None = None,
    parameters: int = 0,
    memory: int | None = None,
) -> Choice:
    """The form for a recipe's `precision` on a machine with or without a GPU.

    `capability` is the GPU's compute capability, `memory` its bytes, `parameters` those of the base; what is not known
    decides nothing. Raises WrongForm."""
    kept = kept_as(config)
    if kept == "nf4" and precision not in ("auto", "nf4"):
        raise WrongForm(f"The checkpoint is NF4; precision {precision} needs openai/gpt-oss-20b, or one in 16 bits.")
    if not on_gpu:
        if kept == "nf4":
            raise WrongForm("NF4 needs a GPU, and there is none. Train a small model in fp32 here.")
        form: Form = "bf16" if precision == "bf16" else "fp32"
        return Choice(
            form, "the recipe says so" if precision == form else "there is no GPU, and a CPU is exact in fp32"
        )
    old = capability is not None and capability < LEAST_CAPABILITY
    if precision == "mxfp4" and kept != "mxfp4":
        raise WrongForm("precision mxfp4 needs a checkpoint in MXFP4, as openai/gpt-oss-20b is.")
    if precision == "nf4" and kept == "mxfp4":
        raise WrongForm(f"This checkpoint is MXFP4. NF4 is trained from {SPLIT}: set base_model to it.")
    if kept == "mxfp4" and precision in ("auto", "mxfp4"):
        if old:
            raise WrongForm(
                f"Training in MXFP4 needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}. "  # type: ignore[index]
                f"Set base_model to {SPLIT}, which is NF4."
            )
        return Choice("mxfp4", "the checkpoint is native MXFP4 and this GPU has kernels for it")
    if precision in ("bf16", "fp32", "nf4"):
        return Choice(precision, "the recipe says so" if kept != precision else "the checkpoint is so, and the recipe")  # type: ignore[arg-type]
    if kept == "nf4":
        return Choice("nf4", "the checkpoint is NF4")
    if memory is not None and parameters * BYTES["bf16"] > 0.6 * memory:
        return Choice(
            "nf4", "the checkpoint's 16 bits would leave this GPU too little room, so it is quantised while it loads"
        )
    return Choice("bf16", "the checkpoint has 16 bits and there is room for them")
