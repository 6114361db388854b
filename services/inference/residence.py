"""Whether the model is in the GPU's memory: it moves in at the start, out while a run needs the GPU, and in again after it.

    loading ─▶ ready ─▶ leaving ─▶ asleep ─▶ loading       a run begins: ready ─▶ leaving, loading ─▶ asleep
                 ▲─────────┘                               it has ended: leaving ─▶ ready, asleep ─▶ loading

One thread decides, once a second and whenever an answer ends; those who answer borrow the engine.
"""

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from services.inference.choice import Impossible
from services.inference.engine import Closed, Engine, Sampling, Token, Unavailable, Weights
from services.inference.memory import give_memory_back
from shared.harmony import Encoder
from shared.schemas import now
from shared.store import NotFound

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # what answers have to end before the model leaves
LAST_SECONDS = 5.0  # and then, to notice that it has left
CALM_SECONDS = 3.0  # no run for so long before the model comes back: the next one in the queue may begin at once
AGAIN_SECONDS = 5.0  # after loading failed, or found no base model


@dataclass(frozen=True)
class Base:
    """The base model's files: the folder, what encodes for them, and the hash of the weights."""

    folder: Path
    encoder: Encoder
    sha256: str


class Loaded(Engine, Protocol):
    """An engine that has its model in memory."""

    why: str  # it is this engine that answers
    stale: str | None  # why it has to be loaded again, if it has

    def close(self) -> None:
        """Give the memory back; answers in progress end with Closed at their next token. May be called again."""
        ...


class Away(Unavailable):
    """The model is not in memory; the message says why, and when it will be."""

    def __init__(self, sentence: str, code: str, retry_after: int) -> None:
        super().__init__(sentence)
        self.code, self.retry_after = code, retry_after


class Residence:
    """Answers as an engine does while the model is in memory, and raises Away while it is not."""

    def __init__(
        self,
        name: str,
        find: Callable[[], Base],
        load: Callable[[Base], Loaded],
        holder: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is the engine's until one is loaded. `find` raises NotFound while there is no base model; `load` raises
        Impossible; `holder` names the run that needs the GPU now, if any."""
        self.name, self.find, self.load, self.holder, self.clock = name, find, load, holder, clock
        self.state: Literal["loading", "ready", "leaving", "asleep"] = "loading"
        self.run: str | None = None
        self.since, self.detail = now(), "the model is being loaded"
        self._base: Base | None = None
        self._engine: Loaded | None = None
        self._answers = 0
        self._until = self._again = self._held = float("-inf")
        self._lock, self._stir = threading.Lock(), threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._live, daemon=True, name="residence").start()

    def _live(self) -> None:
        while True:
            self._stir.clear()
            try:
                self.step()
            except Exception:  # the model must find its way back; the log has what happened
                logger.exception("the look at the GPU goes on")
            self._stir.wait(LOOK_SECONDS)

    # ---- what the thread decides

    def step(self) -> None:
        """Look once, and do what follows from it."""
        run, moment = self.holder(), self.clock()
        if run:
            self._held = moment
        if self.state == "ready" and not run:
            self._renew(moment)
        if self.state == "ready" and run:
            self._until = moment + PATIENCE_SECONDS
            self._become("leaving", run)
        if self.state == "leaving":
            self._leave(run, moment)
        elif self.state == "loading" and run:
            self._become("asleep", run)
        elif self.state == "asleep" and run:
            self.run = run
        elif self.state == "asleep" and moment - self._held >= CALM_SECONDS:
            self._become("loading")
        if self.state == "loading" and moment >= self._again:
            self._move_in()

    def _renew(self, moment: float) -> None:
        """Let an engine that is stale go once nobody is being answered, at the latest after a while."""
        assert self._engine is not None
        if not self._engine.stale:
            self._until = moment + PATIENCE_SECONDS
        elif not self._answers or moment >= self._until:
            logger.warning("the engine is loaded again: %s", self._engine.stale)
            self._engine.close()
            self._engine = None
            self._become("loading")

    def _leave(self, run: str | None, moment: float) -> None:
        assert self._engine is not None
        if not run and moment < self._until:
            return self._become("ready")
        answering = self._answers > 0
        if answering and moment < self._until:
            return None
        self._engine.close()
        if answering and moment < self._until + LAST_SECONDS:
            return None  # an answer holds memory of its own until it has noticed; then this comes here again
        self._engine = None
        return self._become("asleep", run or self.run)

    def _move_in(self) -> None:
        try:
            self._engine = self.load(self._find())
            self.name, self._until = self._engine.name, self.clock() + PATIENCE_SECONDS
        except (Away, Impossible) as missing:
            self.say(str(missing))
        except Exception as error:  # the GPU may be full only now; the log and /health say what it is
            logger.exception("the model could not be loaded")
            self.say(f"the model could not be loaded ({type(error).__name__}: the log says more); it is tried again")
        else:
            return self._become("ready")
        give_memory_back()  # of half a model
        self._again = self.clock() + AGAIN_SECONDS
        return None

    def say(self, detail: str) -> None:
        """Have /health tell what the loading waits for, or how far it is."""
        if detail != self.detail:
            logger.info(detail)
        self.detail = detail

    def _become(self, state: Literal["loading", "ready", "leaving", "asleep"], run: str | None = None) -> None:
        with self._lock:
            self.state, self.run, self.since, self.detail = state, run, now(), "the model is being loaded"

    # ---- what others ask

    def told(self) -> dict[str, Any]:
        """What /health says: "ok", "loading" with what is waited for, or "leaving" or "asleep" with the run."""
        with self._lock:
            status = "ok" if self.state == "ready" else self.state
            more = {"run": self.run} if self.run else {"detail": self.detail} if status == "loading" else {}
            if self._engine is not None:
                more["engine_why"] = self._engine.why
            return {"status": status, **more, "since": self.since}

    def base(self) -> Base:
        """The base model's files, also while it is not in memory. Raises Away while they have not been fetched."""
        return self._find()

    async def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """As an engine. Raises Away at once, or in the middle when the model could wait no longer for the answer's end."""
        with self._lock:
            engine = self._engine if self.state == "ready" else None
            self._answers += engine is not None
        if engine is None:
            raise self._away()
        try:
            async with aclosing(engine.generate(prompt, sampling, weights)) as answer:  # type: ignore[type-var]
                async for tokens in answer:
                    yield tokens
        except Closed:
            raise self._away() from None
        finally:
            with self._lock:
                self._answers -= 1
            self._stir.set()

    def _find(self) -> Base:
        if self._base is None:
            try:
                self._base = self.find()
            except NotFound as missing:
                raise Away(f"Waiting for the base model: {missing}", "loading", 10) from None
        return self._base

    def _away(self) -> Away:
        with self._lock:
            if not self.run:
                return Away(f"No answer yet: {self.detail}. Try again in a moment.", "loading", 10)
            then = "Base and adapters answer again when it has ended, by themselves; GGUF exports answer all the time."
            return Away(f"The run {self.run} has the GPU now. {then}", "asleep", 30)
