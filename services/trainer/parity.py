"""Does an export answer as its adapter does? The same prompts, greedily, token by token."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from services.trainer.child import Context, Refused
from services.trainer.data import today
from services.trainer.served import Served
from services.trainer.streamed import Streamed
from shared import hub
from shared.datasets import is_validation, stream
from shared.harmony import Encoder, HarmonyError, render, row_examples
from shared.schemas import AdapterCard
from shared.store import NotFound

PROMPTS, LONGEST_PROMPT, NEW_TOKENS, TOP = 6, 1024, 24, 400
# What is published has at least this top-1 and cosine, and at most this divergence in nats. A wrong tensor, scale or template
# falls far behind. The fewer bits the experts have, the more often a close decision tips: four of them, in MXFP4 as in Q4_K,
# are forgiven the most, and a LoRA nothing, whose base has the experts as the adapter met them. Four bits and a lost delta
# can have the same top-1 and cosine: an MXFP4 file without its experts' deltas had 0.96 of both and 0.24 nats, a whole one
# 0.98, 0.997 and 0.007.
BOUNDS = {
    "F16": (0.95, 0.99, 0.05),
    "merged": (0.95, 0.99, 0.05),
    "LoRA": (0.95, 0.99, 0.05),
    "Q8_0": (0.9, 0.98, 0.05),
    "Q6_K": (0.9, 0.98, 0.05),
    "Q5_K_M": (0.85, 0.97, 0.1),
    "Q4_K_M": (0.8, 0.95, 0.15),
    "Q4_K_S": (0.8, 0.95, 0.15),
    "MXFP4": (0.8, 0.95, 0.15),
}


@dataclass
class Answer:
    """A greedy answer: its token ids, and at each the likeliest tokens with their log-probabilities."""

    ids: list[int]
    top: list[dict[int, float]]


def prompts(context: Context, adapter: AdapterCard, base: Path) -> list[list[int]]:
    """Token ids of up to PROMPTS prompts from the adapter's validation rows; of three plain questions where none fits."""
    encoder = hub.encoder(base)
    try:
        rows = [
            r
            for r in stream(context.store.dataset(adapter.dataset))
            if is_validation(r, adapter.values.validation_share)
        ]
    except (FileNotFoundError, NotFound):
        rows = []
    most = min(adapter.values.max_length, LONGEST_PROMPT)
    found = [ids for row in rows[: 4 * PROMPTS] if (ids := _prompt(encoder, row)) and len(ids) <= most]
    plain = ({"messages": [{"role": "user", "content": question}]} for question in QUESTIONS)
    return found[:PROMPTS] or [_prompt(encoder, row) for row in plain]


QUESTIONS = ("What can you do for me?", "Tell me something about yourself.", "How do I begin?")


def _prompt(encoder: Encoder, row: dict[str, Any]) -> list[int]:
    """What a row asks, without its answers, as token ids; of a text its beginning; nothing if it cannot be rendered."""
    try:
        if "text" in row:
            return row_examples(row, encoder=encoder, date=today())[0].ids[:NEW_TOKENS]
        asked = [message for message in row["messages"] if message["role"] != "assistant"]
        return encoder.encode(render({**row, "messages": asked}, date=today(), generate=True))
    except HarmonyError:
        return []


@torch.no_grad()
def answers(model: Any, prompts: list[list[int]]) -> list[Answer]:
    """Greedy answers of a transformers model with a growing context, NEW_TOKENS at most."""
    model.eval()
    device = next(model.parameters()).device
    return [_answer(model, ids, device) for ids in prompts]


def _answer(model: Any, ids: list[int], device: torch.device) -> Answer:
    answer, cache = Answer([], []), None
    step = torch.tensor([ids], device=device)
    for _ in range(NEW_TOKENS):
        out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        values, indices = out.logits[0, -1].float().log_softmax(-1).topk(TOP)
        answer.top.append(dict(zip(indices.tolist(), values.tolist(), strict=True)))
        answer.ids.append(int(indices[0]))
        if answer.ids[-1] in (200002, 200012, 199999):
            break
        step = indices[:1].view(1, 1)
    return answer


def measure(export: Served | Streamed, prompts: list[list[int]], reference: list[Answer]) -> dict[str, Any]:
    """Agreement of the export with the adapter's greedy answers, teacher-forced so that one difference is counted once:
    {"prompts", "tokens", "prompt_tokens_equal", "top1", "cosine", "kl", "exact_answers", "speed"}.

    `cosine` is the mean cosine of the two next-token distributions over their likeliest tokens, `kl` the mean divergence
    of the export's from the adapter's in nats, `speed` llama.cpp's, if that answered."""
    with export:
        tokens_equal = export.same_tokens(prompts)
        read = export.read(prompts, [answer.ids for answer in reference], TOP)
        speed = export.speed(prompts)
    hits = [
        [max(theirs, key=theirs.__getitem__) == token for token, theirs in zip(answer.ids, places, strict=True)]
        for answer, places in zip(reference, read, strict=True)
    ]
    told = [
        (ours, theirs)
        for answer, places in zip(reference, read, strict=True)
        for ours, theirs in zip(answer.top, places, strict=True)
        if len(theirs) > 1
    ]
    top1 = list(chain.from_iterable(hits))
    return {
        "prompts": len(prompts),
        "tokens": len(top1),
        "prompt_tokens_equal": tokens_equal,
        "top1": sum(top1) / len(top1),
        "cosine": sum(_cosine(*pair) for pair in told) / len(told),
        "kl": sum(_divergence(*pair) for pair in told) / len(told),
        "exact_answers": sum(map(all, hits)) / len(hits),
        "speed": speed,
    }


def judge(measured: dict[str, Any], encoding: str) -> None:
    """Raises Refused if the export must not be published."""
    top1, cosine, kl = BOUNDS[encoding]
    if not measured["prompt_tokens_equal"]:
        raise Refused(
            "The export's tokenizer renders a prompt to other tokens than the adapter's. It was not published."
        )
    if measured["top1"] < top1 or measured["cosine"] < cosine or measured["kl"] > kl:
        raise Refused(
            f"The export does not agree with its adapter: top-1 {measured['top1']:.3f} (at least {top1}), cosine "
            f"{measured['cosine']:.4f} (at least {cosine}), KL divergence {measured['kl']:.3f} nats (at most {kl}). "
            "It was not published. F16 is the encoding with the least loss."
        )


def _cosine(a: dict[int, float], b: dict[int, float]) -> float:
    keys = sorted(set(a) | set(b))
    x, y = (torch.tensor([side.get(k, -1e9) for k in keys], dtype=torch.float64).exp() for side in (a, b))
    return float(torch.nn.functional.cosine_similarity(x, y, dim=0))


def _divergence(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """KL(ours || theirs) in nats over the tokens that are likely to either; one that a side does not name counts as the
    least that it names. Both are normalised over these tokens: llama.cpp sums its softmax in single precision, in which
    the tail of 200,000 unlikely tokens is lost, so what it leaves for the rest cannot be compared."""
    tokens = ours.keys() | theirs.keys()
    p, q = (_over(tokens, side) for side in (ours, theirs))
    return float((p.exp() * (p - q)).sum())


def _over(tokens: Collection[int], side: dict[int, float]) -> torch.Tensor:
    least = min(side.values())
    return torch.tensor([side.get(token, least) for token in tokens], dtype=torch.float64).log_softmax(0)
