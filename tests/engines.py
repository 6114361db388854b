"""Engines that can run here, and short questions to them."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from services.inference.engine import Closed, Sampling, Token, Weights
from services.inference.residence import Loaded
from shared.settings import Settings

GPU = torch.cuda.is_available()
OFFLINE = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "UNSLOTH_AUTO_INSTALL": "0"}
TOKENS = 12
BASE = Weights("base", "b" * 64)
PROMPTS = [[200006, 1428, 200008, *range(1000 + 7 * n, 1040 + 9 * n), 200007, 200006, 173781] for n in range(3)]


class Asked:
    """An engine in a loop of its own, and short questions to it."""

    def __init__(self, engine: Loaded) -> None:
        self.engine, self.loop = engine, asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(240)

    async def read(self, prompt: list[int], weights: Weights, **sampling: Any) -> list[Token]:
        found: list[Token] = []
        asked = Sampling(**{"max_tokens": TOKENS, "temperature": 0, **sampling})
        async with aclosing(self.engine.generate(prompt, asked, weights)) as answer:
            async for tokens in answer:
                found += tokens
        return found

    def ask(self, prompt: list[int] | None = None, weights: Weights | None = None, **sampling: Any) -> list[Token]:
        return self.run(self.read(prompt or PROMPTS[0], weights or BASE, **sampling))

    def ask_all(self, asked: list[tuple[list[int], Weights]], **sampling: Any) -> list[list[Token]]:
        async def together() -> list[list[Token]]:
            return await asyncio.gather(*(self.read(prompt, weights, **sampling) for prompt, weights in asked))

        return self.run(together())


async def cut_short(engine: Loaded, prompt: list[int]) -> int:
    """Close the engine once it answers; how many of 900 tokens came before the answer ended with Closed."""
    answer, count, closing = engine.generate(prompt, Sampling(900, temperature=0), BASE), 0, None
    try:
        async for tokens in answer:
            count += len(tokens)
            closing = closing or asyncio.create_task(asyncio.to_thread(engine.close))
    except Closed:
        await asyncio.wait_for(closing, 60)
        return count
    pytest.fail("the answer went on to its end")


def unsloth(base: Path, settings: Settings) -> Loaded:
    from services.inference.unsloth.engine import UnslothEngine

    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        return UnslothEngine(base, settings)


def vllm(base: Path, settings: Settings) -> Loaded:
    if find_spec("vllm") is None:
        pytest.skip("the package vllm is not installed here")
    from services.inference.vllm import start
    from services.inference.vllm.engine import VllmEngine

    told = start.arguments
    on_a_cpu = {"enable_lora": False, "enforce_eager": True, "dtype": "float32"}  # its LoRA on experts needs Triton
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "arguments", lambda *given: told(*given) | ({} if GPU else on_a_cpu))
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        return VllmEngine(base, settings)
