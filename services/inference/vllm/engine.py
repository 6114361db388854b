"""The engine over vLLM: token ids go in and come out; channels, templates and stop strings stay above the seam."""

import asyncio
import gc
import logging
import multiprocessing
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any

from services.inference import metrics
from services.inference.engine import Busy, Closed, Sampling, Token, Unavailable, Unfit, Weights
from services.inference.vllm.adapters import check
from services.inference.vllm.start import start
from shared.settings import Settings

logger = logging.getLogger(__name__)
READS = 3000  # of answers in a second, of all together: each takes the one thread 0.1 ms until it is with the client
LAST_SECONDS = 10  # for a process that has been killed
STUCK = "The answer could not go on within its grammar. Try again, or ask for less of it."
FAILED = "The engine failed; the server's log says why. Try again."
DIED = "The engine has died; the server's log says why. It starts again by itself: try again in a minute."


class Outgrown(Unavailable):
    """The engine has to start again, with more room for each adapter."""

    code = "loading"
    retry_after = 60

    def __init__(self, name: str, rank: int) -> None:
        super().__init__(
            f"{name} is of a higher rank than any adapter before it. The server makes room for rank {rank}, which takes a "
            "minute or two. Try again then."
        )


class VllmEngine:
    """Answers many at once, base and adapters mixed."""

    name = "vllm"
    why = ""

    def __init__(self, folder: Path, settings: Settings, say: Callable[[str], None] = logger.info) -> None:
        """Load the base model of a snapshot folder. The first time takes minutes: kernels are compiled; `say` is told
        how far it is."""
        self.places, self.waiting = settings.sequences, settings.waiting_requests
        self.engine, self.rank = start(folder, settings, say)
        self._outgrown: str | None = None
        self.inside = self._held = 0
        self._numbers = count(1)
        self._known: dict[str, asyncio.Task[Any]] = {}  # vLLM's name for an adapter, by its hash
        self._loop: asyncio.AbstractEventLoop | None = None
        cells = max(settings.cached_tokens, settings.context_tokens)
        metrics.CACHE_USE.set_function(lambda: min(self._held / cells, 1))  # what requests share is counted for each
        metrics.WAITING.set_function(lambda: max(self.inside - self.places, 0))
        gc.collect()
        gc.freeze()  # what is there now stays: to look at all of it again would hold up every stream

    async def generate(self, prompt: list[int], sampling: Sampling, weights: Weights) -> AsyncIterator[list[Token]]:
        """As the seam says. Ends with Closed when the engine is closed meanwhile."""
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        engine, self._loop = self.engine, asyncio.get_running_loop()
        if engine is None:
            raise Closed
        if self.inside >= self.places + self.waiting:
            raise Busy(self.waiting)
        self.inside += 1
        held = len(prompt)
        self._held += held
        try:
            answer = engine.generate(
                tokens_input(prompt),
                parameters(prompt, sampling),
                f"{next(self._numbers)}",
                lora_request=await self._adapter(weights),
            )
            async with aclosing(answer):  # closed early, it gives its place to others
                async for output in answer:
                    part = output.outputs[0]
                    if held == len(prompt):
                        metrics.PREFIX_QUERIES.inc(held)
                        metrics.PREFIX_HITS.inc(output.num_cached_tokens or 0)
                    held += len(part.token_ids)
                    self._held += len(part.token_ids)
                    if part.token_ids:
                        yield tokens(part, sampling.logprobs)
                    if part.finish_reason == "error":
                        raise Unavailable(STUCK)
                    if part.finish_reason is None:
                        left = len(prompt) + sampling.max_tokens - held
                        await asyncio.sleep(pause(self.inside, len(part.token_ids), left))
        except EngineDeadError as error:
            raise (Closed() if self.engine is None else Unavailable(DIED)) from error
        except EngineGenerateError as error:
            logger.exception("an answer failed")
            raise Unavailable(FAILED) from error
        finally:
            self.inside -= 1
            self._held -= held

    @property
    def stale(self) -> str | None:
        """Why it has to be loaded again, if it has."""
        dead = self.engine is not None and self.engine.errored
        return "vLLM's processes have ended by themselves." if dead else self._outgrown

    def close(self) -> None:
        """End vLLM's processes, and their memory with them; answers in progress end with Closed. May be called again."""
        from vllm.v1.engine.exceptions import EngineDeadError

        engine, self.engine = self.engine, None
        if engine is None:
            return
        if self._loop is not None and not self._loop.is_closed():  # those who wait for a token would wait for ever
            self._loop.call_soon_threadsafe(engine.output_processor.propagate_error, EngineDeadError())
        engine.shutdown()
        gc.unfreeze()
        for process in multiprocessing.active_children():
            process.join(LAST_SECONDS)  # one that it had to kill has its memory for a moment more

    async def _adapter(self, weights: Weights) -> Any:
        """vLLM's name for the adapter, which is read when it is first asked for; None for the base. Raises Unfit."""
        if weights.adapter is None:
            return None
        if weights.sha256 not in self._known:
            self._known[weights.sha256] = asyncio.create_task(self._read(weights))
        try:
            return await asyncio.shield(self._known[weights.sha256])
        except Exception:
            self._known.pop(weights.sha256, None)  # the next one who asks may do better
            raise

    async def _read(self, weights: Weights) -> Any:
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        rank = await asyncio.to_thread(check, weights)
        if rank > self.rank:
            self._outgrown = f"An adapter of rank {rank} is to answer, and there was room for rank {self.rank}."
            raise Outgrown(weights.name, rank)
        if self.engine is None:
            raise Closed
        request = LoRARequest(weights.sha256, next(self._numbers), str(weights.adapter))
        try:
            await self.engine.add_lora(request)  # what is wrong with it fails here, and not within a batch
        except EngineDeadError:
            raise
        except Exception as error:
            raise Unfit(f"vLLM cannot apply the adapter {weights.name}: {error}") from error
        return request


def pause(inside: int, came: int, left: int) -> float:
    """Seconds until an answer is read again, of so many `inside`: what comes meanwhile, vLLM puts together. No more than the
    `left` tokens that it may still have take, at the pace of those that `came` since the last time."""
    return inside / READS * min(1, left / max(came, 1))


def parameters(prompt: list[int], sampling: Sampling) -> Any:
    """The same in vLLM's words: its SamplingParams."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sampling.seed,
        stop_token_ids=list(sampling.stops),
        logit_bias=dict(sampling.logit_bias) or None,
        logprobs=sampling.logprobs,
        structured_outputs=_grammar(prompt, sampling),
        ignore_eos=True,  # the stops say where it ends
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _grammar(prompt: list[int], sampling: Sampling) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    from services.inference.vllm.grammars import written

    if not sampling.grammar:
        return None
    return StructuredOutputsParams(grammar=written(sampling.grammar, prompt[len(prompt) - sampling.begun :]))


def tokens(output: Any, most: int | None) -> list[Token]:
    """The tokens of a part of an answer, with the `most` likeliest ones where they were asked for."""
    if most is None:
        return [Token(id_) for id_ in output.token_ids]
    return [_told(id_, found, most) for id_, found in zip(output.token_ids, output.logprobs, strict=True)]


def _told(id_: int, found: dict[int, Any], most: int) -> Token:
    """vLLM gives the likeliest tokens with their ranks, and with them the one that was drawn, whatever its own."""
    ranked = sorted(found.items(), key=lambda item: item[1].rank)
    return Token(id_, found[id_].logprob, tuple((other, told.logprob) for other, told in ranked[:most]))
