"""The engine over Unsloth's model: one thread owns the model, those who ask are asynchronous."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch

from services.inference.constraint import Constraint
from services.inference.engine import Closed, Sampling, Token, Unavailable, Weights
from services.inference.memory import give_memory_back
from services.inference.unsloth.batch import Batch
from services.inference.unsloth.schedule import Sequence
from shared import hub
from shared.settings import Settings

logger = logging.getLogger(__name__)


def load(folder: Path, context_tokens: int) -> Any:
    """The base model of a snapshot folder, on a GPU in 4 bits or on the CPU in fp32."""
    import unsloth  # noqa: F401  # before transformers and peft, which it patches
    from unsloth import FastLanguageModel

    cuda = torch.cuda.is_available()
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=context_tokens,
        dtype=None if cuda else torch.float32,
        load_in_4bit=cuda,
        local_files_only=True,
    )
    FastLanguageModel.for_inference(model)
    return model.eval()


class UnslothEngine:
    """Answers many at once, base and adapters mixed."""

    name = "unsloth"
    why = ""
    stale = None

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Load the base model of a snapshot folder and begin to answer."""
        self.folder = folder
        self.batch: Batch | None = Batch(
            load(folder, settings.context_tokens),
            cells=max(settings.cached_tokens, settings.context_tokens),
            most_running=settings.sequences,
            most_waiting=settings.waiting_requests,
            kept_adapters=settings.kept_adapters,
        )
        self._closing = False
        self._stir = threading.Event()
        self._outbox: list[tuple[_Inbox, Token | Exception | None]] = []
        self._thread = threading.Thread(target=self._live, daemon=True, name="engine")
        self._thread.start()

    async def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """As the seam says. Ends with Closed when the engine is closed meanwhile."""
        constraint = await asyncio.to_thread(self._constraint, prompt, sampling) if sampling.grammar else None
        inbox = _Inbox()
        sequence = Sequence(prompt, sampling, weights, lambda said: self._outbox.append((inbox, said)), constraint)
        if self.batch is not None:
            self.batch.schedule.add(sequence)
        if self._closing:  # asked after adding: the thread's last look may have been before it
            raise Closed
        self._stir.set()
        try:
            while tokens := await inbox.tokens():
                yield tokens
        finally:
            sequence.left = True
            self._stir.set()

    def close(self) -> None:
        """Give the memory back; answers in progress end with Closed after the tokens they have. May be called again."""
        self._closing = True
        self._stir.set()
        self._thread.join()
        self.batch = None
        give_memory_back()

    def _constraint(self, prompt: list[int], sampling: Sampling) -> Constraint:
        """The request's grammar, at the place that the answer has come to."""
        constraint = Constraint(hub.encoder(self.folder), str(sampling.grammar))
        for token in prompt[len(prompt) - sampling.begun :]:
            constraint.advance(token)
        return constraint

    def _live(self) -> None:
        assert self.batch is not None
        while not self._closing:
            self._stir.clear()
            try:
                worked = self.batch.step()
            except Exception:  # the next requests may do better; the log has what happened
                logger.exception("the step failed")
                self.batch.fail(Unavailable("The engine failed; the server's log says why. Try again."))
                worked = True
            self._deliver()
            if not worked:
                self._stir.wait()
        self.batch.fail(Closed())
        self._deliver()

    def _deliver(self) -> None:
        """Hand over what was said in the step, once for each event loop: waking one for each token would slow both."""
        said, self._outbox = self._outbox, []
        for loop in {inbox.loop for inbox, _ in said}:
            mine = [(inbox, item) for inbox, item in said if inbox.loop is loop]
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
                loop.call_soon_threadsafe(_put, mine)


class _Inbox:
    """What the engine's thread has said to one who asked."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Token | Exception | None] = asyncio.Queue()

    async def tokens(self) -> list[Token]:
        """All that has been said since the last call, at least a token; nothing at the end. Raises what went wrong."""
        items = [await self.queue.get()]
        while isinstance(items[-1], Token) and not self.queue.empty():
            items.append(self.queue.get_nowait())
        last = items[-1]
        if isinstance(last, Token):
            return items
        if len(items) > 1:
            self.queue.put_nowait(last)  # after the tokens before it
            return items[:-1]
        if last is not None:
            raise last
        return []


def _put(items: list[tuple[_Inbox, Token | Exception | None]]) -> None:
    for inbox, item in items:
        inbox.queue.put_nowait(item)
