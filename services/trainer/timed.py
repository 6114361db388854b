"""Requests to a server of OpenAI's API, timed from outside: one streamed answer, and what many come to."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import httpx

from shared.lines import Lines


class NoAnswer(RuntimeError):
    """A request was refused or broke off; the message says why, `code` is the server's word for it if it has one."""

    def __init__(self, sentence: str, code: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Answer:
    """When an answer was asked for, when its first text came and when it ended (seconds of a clock), and its tokens."""

    asked: float
    first: float
    last: float
    tokens: int
    sha256: str | None = None


def ask(client: httpx.Client, model: str, prompt: list[int], tokens: int, check: Callable[[], None]) -> Answer:
    """One greedy answer of `tokens` tokens, whatever they are, to a prompt of token ids, by `POST /v1/completions`.

    Tokens are counted by the server, whose `usage` is the stream's last chunk: a chunk of text may hold several, or a part
    of one, and the token that ends an answer has none. `check` is called with every line and may raise. Raises NoAnswer."""
    options = {"temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "fallback": False, **options}
    asked = last = time.monotonic()
    first = usage = None
    try:
        with client.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                response.read()
                raise _refusal(response)
            lines = Lines()
            for line in chain.from_iterable(map(lines.feed, response.iter_bytes())):
                moment = time.monotonic()
                check()
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise NoAnswer(chunk["error"]["message"], chunk["error"].get("code"))
                if chunk["choices"]:
                    last = moment
                if first is None and any(choice.get("text") for choice in chunk["choices"]):
                    first = moment
                usage = chunk.get("usage") or usage
            sha256 = response.headers.get("X-Tandem-SHA256")
    except httpx.HTTPError as error:
        raise NoAnswer(f"The inference server does not answer ({error or type(error).__name__}).") from error
    if usage is None:
        raise NoAnswer("The answer broke off.")
    return Answer(asked, first or last, last, usage["completion_tokens"], sha256)


def figures(answers: Sequence[Answer]) -> dict[str, float]:
    """What answers that were made at the same time come to, by the names of `Speed`: times in seconds, rates in tokens a
    second. An answer's own rate is that of the tokens after its first."""
    if not answers:
        return {}
    waits = [answer.first - answer.asked for answer in answers]
    rates = [(a.tokens - 1) / (a.last - a.first) for a in answers if a.last > a.first]
    whole = max(answer.last for answer in answers) - min(answer.asked for answer in answers)
    found = {
        "first_token": statistics.median(waits),
        "first_token_p95": _p95(waits),
        "tokens_per_second_all": sum(answer.tokens for answer in answers) / whole,
        **({"tokens_per_second": statistics.median(rates)} if rates else {}),
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _p95(values: Sequence[float]) -> float:
    """The 95th percentile, between two values where it falls between them."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def _refusal(response: httpx.Response) -> NoAnswer:
    try:
        said: dict[str, Any] = response.json()["error"]
        return NoAnswer(said["message"], said.get("code"))
    except (ValueError, LookupError, TypeError):
        return NoAnswer(f"The inference server answered {response.status_code}.")
