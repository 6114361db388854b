"""Nothing is believed because it ran: what is measured of a run before and after it, and what refuses it."""

import math
from typing import Any

import torch
import torch.nn.functional as functional
from datasets import Dataset

from services.trainer.child import Context, Refused
from services.trainer.model import lora_norms
from services.trainer.preferences import as_examples, preference

PROMPTS = 8
PAIRS = 64


def show_first_example(context: Context, dataset: Dataset, encoder: Any) -> None:
    """Print the first example token by token to log.txt, the supervised ones marked; of a pair both answers."""
    first = dataset.select([0])
    row = as_examples(first)[0]
    print("The first example; what is between [ ] is supervised:")
    print(_marked(row, encoder))
    if "rejected_ids" in dataset.column_names:
        print("\nThe chosen answer ends here. The same prompt with the rejected one:\n")
        print(_marked(as_examples(first, "rejected")[0], encoder))
    supervised = sum(label != -100 for label in row["labels"])
    context.log(f"First example: {supervised} of {len(row['labels'])} tokens are supervised; log.txt shows which.")


def _marked(row: dict[str, list[int]], encoder: Any) -> str:
    pieces = encoder.tokens(row["input_ids"])
    return "".join(f"[{piece}]" if label != -100 else piece for piece, label in zip(pieces, row["labels"], strict=True))


@torch.no_grad()
def supervised_logits(model: Any, dataset: Dataset, limit: int = PROMPTS) -> list[torch.Tensor]:
    """Logits at the supervised positions of the first `limit` examples, of pairs those of the chosen answers: each
    (positions, vocabulary) in fp32 on the CPU."""
    device = next(model.parameters()).device
    found = []
    for row in as_examples(dataset.select(range(min(limit, len(dataset))))):
        ids = torch.tensor([row["input_ids"]], device=device)
        where = [i - 1 for i, label in enumerate(row["labels"]) if label != -100 and i][:64]
        hidden = model(input_ids=ids, use_cache=False).logits[0, where]
        found.append(hidden.float().cpu())
    return found


def after_training(model: Any, held_out: Dataset) -> dict[str, Any]:
    """Prove that the adapter is there and does something: {"norm_A", "norm_B", "parts", "prompts", "top1_changed", "kl",
    "logits_moved"}.

    `parts` has the norms by kind, as `lora_norms` gives them. `top1_changed` is the share of positions whose likeliest
    token differs from the base's, `kl` the mean divergence of base from adapter in nats. For pairs there is "preference" as
    well, as `preferences.preference` gives it. Raises Refused when a kind's B is zero or no logit moved."""
    parts = lora_norms(model)
    norms = {side: math.hypot(*(kind[side] for kind in parts.values())) for side in ("A", "B")}
    if untrained := [kind for kind, sides in parts.items() if not sides["B"] > 0]:
        raise Refused(
            f"The adapter's B matrices of the {' and the '.join(untrained)} are all zero after training: they change "
            "nothing. Nothing was published."
        )
    model.eval()
    some = held_out.select(range(min(PAIRS, len(held_out))))
    pairs = {"preference": preference(model, some)} if "chosen_ids" in held_out.column_names else {}
    tuned = supervised_logits(model, held_out)
    with model.disable_adapter():
        base = supervised_logits(model, held_out)
    moved = max(float((a - b).abs().max()) for a, b in zip(tuned, base, strict=True))
    if not moved > 1e-4:
        raise Refused(
            f"The adapter has weights (norm {norms['B']:.3g}), but no logit moved by more than {moved:.1e} on "
            f"{len(tuned)} held-out examples: it is not applied. Nothing was published."
        )
    changed = torch.cat([(a.argmax(-1) != b.argmax(-1)).float() for a, b in zip(tuned, base, strict=True)])
    divergence = torch.cat(
        [
            functional.kl_div(a.log_softmax(-1), b.log_softmax(-1), log_target=True, reduction="none").sum(-1)
            for a, b in zip(tuned, base, strict=True)
        ]
    )
    return {
        "norm_A": norms["A"],
        "norm_B": norms["B"],
        "parts": parts,
        "prompts": len(tuned),
        "positions": len(changed),
        "top1_changed": float(changed.mean()),
        "kl": float(divergence.mean()),
        "logits_moved": moved,
        **pairs,
    }
