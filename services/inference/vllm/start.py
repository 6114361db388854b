"""How vLLM is started, and what it is told."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.inference.vllm.progress import followed
from services.inference.vllm.room import Card, Needs, card
from shared import registry
from shared.settings import Settings
from shared.store import Store

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
    # its kernels for drawing a token are compiled with nvcc, which takes a minute where there is one
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
SHARE = 0.95  # of a GPU that vLLM may ask for
# Tokens of a pass. A long prompt is read in as many passes as it takes, and those who are being answered wait for one of them.
# Each token takes 170 KB while it is computed: with vLLM's own 8,192 on an H200, 1.3 GiB.
PASS = 2048


def start(folder: Path, settings: Settings, say: Callable[[str], None]) -> tuple[Any, int]:
    """(vLLM's asynchronous engine over a snapshot folder, the highest rank of an adapter that it has room for).

    `say` is told how far it is."""
    os.environ.update(ENVIRONMENT)
    with followed(say):
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        told = arguments(folder, settings)
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**told)), told["max_lora_rank"]


def arguments(folder: Path, settings: Settings) -> dict[str, Any]:
    """vLLM's engine arguments."""
    from vllm.config import StructuredOutputsConfig

    found = card()
    count, total, free = (found.count, found.total, found.free) if found else (1, None, None)
    needed = needs(folder, settings, found)
    return {
        "model": str(folder),
        "max_model_len": settings.context_tokens,
        "max_num_seqs": settings.sequences,
        "max_num_batched_tokens": max(PASS, settings.sequences),
        "kv_cache_memory_bytes": needed.cache,
        # with the cache's size given, this is only how much has to be free when it starts
        "gpu_memory_utilization": min(needed.bytes(free) / total, SHARE) if total else SHARE,
        "tensor_parallel_size": count,
        "enable_prefix_caching": True,
        "cudagraph_capture_sizes": graphs(settings.sequences),
        "enable_lora": True,
        "max_loras": needed.places(free),
        "max_cpu_loras": settings.kept_adapters,
        "max_lora_rank": needed.rank,
        **({"worker_cls": "services.inference.vllm.worker.Worker"} if found else {}),  # our kernels for adapters
        "logprobs_mode": "raw_logprobs",  # before temperature and bias
        # the notation of our grammars, which are over the whole answer, its thinking included
        "structured_outputs_config": StructuredOutputsConfig(backend="guidance", enable_in_reasoning=True),
        "scheduler_cls": "services.inference.vllm.grammars.scheduler",
        "generation_config": "vllm",  # the checkpoint has no say in how tokens are drawn
        "disable_log_stats": True,
        "enable_log_requests": False,
    }


def graphs(sequences: int) -> list[int]:
    """The numbers of tokens that a step is recorded for as a CUDA graph; one with fewer is filled up. Left to itself vLLM
    records gpt-oss 83 sizes, each with and without adapters, and half a minute goes by at each start."""
    decoding = [n for n in (1, 2, 4, *range(8, sequences, 8)) if n < sequences]
    return sorted({*decoding, sequences, *(n for n in (128, 256, 512, 1024) if n > sequences)})


def needs(folder: Path, settings: Settings, found: Card | None) -> Needs:
    """What vLLM takes of each GPU, with the adapters that are published."""
    return Needs(folder, settings, ranks(settings), found.count if found else 1)


def ranks(settings: Settings) -> list[int]:
    """Those of the adapters of the base model that are published."""
    store = Store(settings.data)
    mine = [card.reference for card in registry.adapters(store) if card.base_model == settings.base_model]
    return [json.loads((store.adapter(name) / "adapter_config.json").read_text())["r"] for name in mine]
