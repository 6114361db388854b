"""From the model's logits to the next token of each sequence."""

from collections.abc import Sequence
from random import Random

import numpy as np
import torch

from services.inference.engine import Sampling, Token


def draw(
    logits: torch.Tensor, asked: list[tuple[Sampling, Random]], allowed: Sequence[bytes | None] = ()
) -> list[Token]:
    """The next token of each row of `logits` (rows, vocabulary), fp32. A row's token does not depend on the other rows.

    A row that has bits in `allowed`, the lowest of the first byte for id 0, draws none of the tokens whose bit is not set."""
    bits = allowed or [None] * len(asked)
    plain = [
        masked is None and sampling.temperature <= 0 and not sampling.logit_bias
        for (sampling, _), masked in zip(asked, bits, strict=True)
    ]
    likeliest = logits.argmax(-1) if any(plain) else logits
    ids = [
        likeliest[row] if plain[row] else _one(_only(bits[row], logits[row]), sampling, random)
        for row, (sampling, random) in enumerate(asked)
    ]
    found = torch.stack(ids).tolist()
    return [
        Token(id_) if sampling.logprobs is None else _told(id_, logits[row], sampling.logprobs)
        for row, (id_, (sampling, _)) in enumerate(zip(found, asked, strict=True))
    ]


def _one(logits: torch.Tensor, sampling: Sampling, random: Random) -> torch.Tensor:
    if sampling.logit_bias:
        logits = logits.clone()
        at = torch.tensor(list(sampling.logit_bias), device=logits.device)
        logits[at] += torch.tensor(list(sampling.logit_bias.values()), device=logits.device)
    if sampling.temperature <= 0:
        return logits.argmax()
    logits = logits / sampling.temperature
    if sampling.top_k:
        smallest = logits.topk(min(sampling.top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probabilities = logits.softmax(-1)
    if sampling.min_p:
        probabilities[probabilities < sampling.min_p * probabilities.max()] = 0
    if sampling.top_p < 1:
        ordered, indices = probabilities.sort(descending=True)
        ordered[(ordered.cumsum(-1) - ordered) > sampling.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(0, indices, ordered)
    # Inverse transform sampling; torch.multinomial draws a number for each entry, 24 ms for this vocabulary on a CPU.
    # In fp64: most of a vocabulary's entries are too small for sums in fp32 to tell apart.
    upto = probabilities.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(upto, random.random() * upto[-1], right=True).clamp(max=len(upto) - 1)


def _only(bits: bytes | None, logits: torch.Tensor) -> torch.Tensor:
    """The logits of a row (vocabulary,) without those of tokens that are not allowed."""
    if bits is None:
        return logits
    found = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=logits.shape[-1], bitorder="little")
    return logits.masked_fill(torch.from_numpy(found == 0).to(logits.device), -torch.inf)


def _told(id_: int, logits: torch.Tensor, most: int) -> Token:
    logprobs = logits.log_softmax(-1)
    top = logprobs.topk(most)
    return Token(id_, float(logprobs[id_]), tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
