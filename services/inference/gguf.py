"""The same interface over llama.cpp's server: a GGUF export answers as any other model does."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

import httpx

from services.inference import access
from services.inference.constraint import Constraint
from services.inference.engine import Sampling, Token, Unavailable, Weights
from services.inference.grammar import for_llama_cpp
from shared.harmony import Encoder, Piece
from shared.lines import Lines

SPECIAL = re.compile(r"(<\|[a-z_]+\|>)")


class LlamaEngine:
    """Sends token ids to `/completion` and turns the text that comes back, channel tokens shown, into ids again.

    The text, because llama.cpp leaves out of its stream the id of a token that ends inside a character."""

    name = "llama.cpp"

    def __init__(self, url: str, encoder: Callable[[], Encoder]) -> None:
        self.encoder = encoder
        every = httpx.Limits(max_connections=None)  # llama.cpp lets them wait, not the client
        self.client = httpx.AsyncClient(base_url=url, limits=every, timeout=httpx.Timeout(10, read=None))

    async def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """As the seam says, but log-probabilities are not known: the ids are made from text. A grammar is followed from the
        answer's first token; one that llama.cpp does not keep to ends the answer with Unavailable."""
        await self._check(weights.name)
        encoder = self.encoder()
        constraint = await asyncio.to_thread(Constraint, encoder, sampling.grammar) if sampling.grammar else None
        body = {
            "prompt": prompt,
            "n_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "samplers": ["top_k", "top_p", "min_p", "temperature"],
            "repeat_penalty": 1.0,
            "logit_bias": [[id_, bias] for id_, bias in sampling.logit_bias.items()],
            "seed": sampling.seed if sampling.seed is not None else -1,
            "ignore_eos": not sampling.stops,
            "stream": True,
            "cache_prompt": True,
            **({"grammar": for_llama_cpp(sampling.grammar)} if sampling.grammar else {}),
        }
        try:
            async with self.client.stream("POST", "/completion", json=body, headers=access.passed_on()) as answer:
                if answer.status_code != 200:
                    said = (await answer.aread()).decode()[:300]
                    raise Unavailable(f"llama.cpp answered {answer.status_code}: {said}")
                async for chunk in _events(answer):
                    ids = encoder.encode(pieces(chunk.get("content", "")))
                    if (
                        chunk.get("stop") and chunk.get("stop_type") == "eos" and sampling.stops
                    ):  # its token was not shown
                        ids.append(sampling.stops[0])
                    end = next((place for place, id_ in enumerate(ids) if id_ in sampling.stops), len(ids))
                    if ids:
                        _follow(constraint, ids[: end + 1])
                        yield [Token(id_) for id_ in ids[: end + 1]]
                    if end < len(ids):
                        return
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The GGUF server broke off ({error or type(error).__name__}). Try again in a moment."
            ) from error

    async def _check(self, name: str) -> None:
        """Raises Unavailable unless llama.cpp serves the export `name` now."""
        try:
            answer = (await self.client.get("/v1/models", headers=access.passed_on(), timeout=5)).json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(
                "The GGUF server does not answer. It may be loading a model; try again in a moment."
            ) from error
        served = [model["id"] for model in answer.get("data", [])]
        if name.removesuffix(".gguf") not in served:
            now = f"serves {served[0]}" if served else "is still loading"
            raise Unavailable(
                f"The GGUF server {now}, not {name}. Point the alias 'gguf' at it: tandem alias set gguf {name}"
            )


def _follow(constraint: Constraint | None, ids: list[int]) -> None:
    try:
        for id_ in ids if constraint else ():
            constraint.advance(id_)
    except ValueError:
        raise Unavailable("llama.cpp did not keep to the form that was asked for. Ask the export's adapter.") from None


def pieces(text: str) -> list[Piece]:
    """Text in which `<|channel|>` and its like stand for the tokens, as pieces to encode."""
    parts = [part for part in SPECIAL.split(text) if part]
    return [Piece(part, "assistant", None, "special" if SPECIAL.fullmatch(part) else "content", None) for part in parts]


async def _events(answer: httpx.Response) -> AsyncIterator[dict]:
    lines = Lines()
    async for chunk in answer.aiter_bytes():
        for line in lines.feed(chunk):
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])
