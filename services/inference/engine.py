"""The seam between HTTP and what answers: token ids go in, token ids come out."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Unavailable(RuntimeError):
    """What is to answer cannot now; the message says why and what to do."""

    status = 503
    code = "backend_unavailable"
    retry_after = 5  # seconds


class Busy(Unavailable):
    """As many requests wait as may."""

    status = 429
    code = "busy"

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting already. Try again in a moment.")


class Expired(Unavailable):
    """The answer was not complete when its time was up."""

    status = 504
    code = "deadline_exceeded"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The answer was not complete after {seconds:g} s. Ask for fewer tokens, or for a later deadline."
        )


class Closed(RuntimeError):
    """The engine was closed while it answered."""


class Unfit(ValueError):
    """The engine cannot apply the adapter as it is; the message says why."""


@dataclass(frozen=True)
class Token:
    """A generated token. Where they were asked for: its natural log-probability, and the likeliest tokens with theirs,
    as the model gave them, before temperature and bias. `kept` says that it was generated for an earlier request."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    kept: bool = False


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn, and when to end. Temperature 0 takes the likeliest one."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stops: tuple[int, ...] = ()  # the answer ends with the first of them
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None  # how many of the likeliest tokens are told with each token; None tells none
    deadline: float | None = None  # seconds from the request to the answer's end, however long it waits
    grammar: str | None = None  # what the answer has to follow, as services.inference.grammar writes it
    begun: int = 0  # tokens at the prompt's end that are the beginning of the answer: the grammar has them, too
    forced: bool = False  # words may be put into the answer, and the engine be asked to go on after them


@dataclass(frozen=True)
class Weights:
    """What answers: the base where `adapter` is None, else the adapter in that folder, known by its hash."""

    name: str
    sha256: str
    adapter: Path | None = None


class Engine(Protocol):
    """What the HTTP layer needs of an engine."""

    name: str

    def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """Yield tokens as they come, one or more at a time, until one of `sampling.stops` (it is yielded too) or
        `sampling.max_tokens`. Closing the iterator gives its place to others at once; the deadline is kept by who reads.

        Raises Unavailable, or Busy where too many wait; Unfit for an adapter that cannot be applied."""
        ...
