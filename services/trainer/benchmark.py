"""Measure how fast models answer, over the API that everybody asks: time to first token and tokens a second, by how many
ask at a time. Nothing is loaded here: the servers, with the GPU that they have, are what is measured.

python -m services.trainer.benchmark RUN_ID
"""

import itertools
import math
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx

from services.trainer.child import Context, Refused, main
from services.trainer.timed import Answer, NoAnswer, ask, figures
from shared import hub
from shared.harmony import Encoder, Piece

LEAST_ANSWERS = 8  # at each concurrency
WARM_UP_TOKENS = 8
TIMEOUT = httpx.Timeout(600, connect=10)  # seconds; the last of many may wait long for a first token
LIMITS = httpx.Limits(max_connections=None)  # as many as ask at a time
# Seconds for which a model that cannot answer yet is waited for, by the server's word for it: after another run the GPU
# comes back, and the GGUF server may be reading its file, or have another one.
PATIENCE = {"loading": 600.0, "asleep": 600.0, "backend_unavailable": 10.0}
LOOK_AGAIN = 0.5

Asked = Callable[[list[int], int], Answer]  # token ids of a prompt, most tokens of its answer


def benchmark(context: Context) -> None:
    job, settings = context.spec.job, context.settings
    assert job.models and job.concurrency and job.tokens and job.prompt_tokens
    encoder = hub.encoder(hub.snapshot(settings.base_model, "main", settings.hf_home))
    prompts = counting(encoder, job.prompt_tokens, zlib.crc32(context.spec.id.encode()))
    done, steps, best = 0, len(job.models) * len(job.concurrency), (0.0, "")
    with httpx.Client(base_url=settings.inference_url, timeout=TIMEOUT, limits=LIMITS, trust_env=False) as client:
        engine = engine_of(client)
        for model in job.models:
            asked = partial(ask, client, model, check=context.check)
            row: dict[str, Any] = {"model": model, "engine": "llama.cpp" if model.endswith(".gguf") else engine}
            row |= {"prompt_tokens": job.prompt_tokens, "tokens": job.tokens}
            try:
                row |= wake(context, asked, model, next(prompts))
            except NoAnswer as refusal:
                context.log(f"{model} does not answer: {refusal}")
                done += len(job.concurrency)
                context.event("speed", step=done, steps=steps, **row, error=str(refusal))
                context.progress(done, steps)
                continue
            for concurrency in job.concurrency:
                context.log(f"{model}, {concurrency} at a time.")
                found = level(asked, prompts, job.tokens, concurrency)
                best = max(best, (found.get("tokens_per_second_all", 0.0), model))
                done += 1
                context.event("speed", step=done, steps=steps, **row, concurrency=concurrency, **found)
                context.progress(done, steps)
    if not best[0]:
        raise Refused("None of the models answered. The table has the reason for each.")
    context.event("published", name=f"{best[0]:,.0f} tokens a second at most ({best[1]})")


def wake(context: Context, asked: Asked, model: str, prompt: list[int]) -> dict[str, Any]:
    """The seconds until the model's first answer began, which its figures leave out, and the hash of its weights: it may be
    loaded for that answer, or kernels be compiled. Raises NoAnswer where it cannot be waited for."""
    context.log(f"{model} is warmed up.")
    began, said = time.monotonic(), ""
    while True:
        try:
            answer = asked(prompt, WARM_UP_TOKENS)
            return {"loading": round(answer.first - began, 3), "sha256": answer.sha256}
        except NoAnswer as refusal:
            if time.monotonic() - began >= PATIENCE.get(refusal.code or "", 0):
                raise
            if str(refusal) != said:
                said = str(refusal)
                context.log(said)
        context.check()
        time.sleep(LOOK_AGAIN)


def level(asked: Asked, prompts: Iterator[list[int]], tokens: int, concurrency: int) -> dict[str, Any]:
    """The figures of at least LEAST_ANSWERS answers, `concurrency` of them being made at any time."""

    def one(prompt: list[int]) -> Answer | NoAnswer:
        try:
            return asked(prompt, tokens)
        except NoAnswer as refusal:
            return refusal

    wanted = list(itertools.islice(prompts, concurrency * math.ceil(LEAST_ANSWERS / concurrency)))
    with ThreadPoolExecutor(concurrency) as pool:
        came = list(pool.map(one, wanted))
    answers = [answer for answer in came if isinstance(answer, Answer)]
    refusals = [str(refusal) for refusal in came if isinstance(refusal, NoAnswer)]
    error = refusals[0] if refusals else None
    return {"answered": len(answers), "errors": len(refusals), "error": error, **figures(answers)}


def counting(encoder: Encoder, tokens: int, seed: int) -> Iterator[list[int]]:
    """Prompts of `tokens` token ids each, which count.

    They are the same in every run but for a number at their head, which follows from `seed`: by it no server has one of them
    in a cache, where prompts are found by how they begin."""
    for number in itertools.count(100_000):
        head = (seed + number) % 900_000 + 100_000
        text = ", ".join(str(one) for one in (head, *range(number, number + tokens)))
        yield encoder.encode([Piece(text, "user", None, "content", None)])[:tokens]


def engine_of(client: httpx.Client) -> str | None:
    """What makes the tokens of base and adapters, and on which GPU; None where the server does not tell."""
    try:
        told = client.get("/health").json()
    except (httpx.HTTPError, ValueError):
        return None
    return (
        " on ".join(filter(None, [told.get("engine"), ", ".join(gpu["name"] for gpu in told.get("gpus", []))])) or None
    )


if __name__ == "__main__":
    main(benchmark)
