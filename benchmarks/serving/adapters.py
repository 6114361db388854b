"""vLLM over 8 adapters, with its own LoRA kernels and with ours, in one process: tokens a second, and where the time of a step goes.

python -m benchmarks.serving.adapters CHECKPOINT [--out FILE] [--quick]

CHECKPOINT is gpt-oss-20b in MXFP4; random weights of its shape will do. The adapters are random, of rank 16, on attention and
experts. 128 tokens in, 128 out, greedy, after the first of each stream. Prints a line of JSON for each finding and a table of a
step's kernels for both, and keeps all of it in FILE. vLLM starts once; its CUDA graphs are captured again in between.
"""

import os

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from vllm import LLM, SamplingParams
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.lora.request import LoRARequest

from benchmarks.serving.bare import FAIR, OPTIONS, seconds
from benchmarks.serving.speed import ADAPTERS, MIXED, RANK, decode, prompts
from services.inference.vllm import lora
from shared.store import Store

CASES = [(MIXED, 8), (MIXED, 0), (1, 1), (128, 8), (8, 8), (MIXED, 1), (1, 0)]  # streams, adapters among them
STEPS = 16  # of a profile
KERNELS = {"ours": lora.TOKENS, "vllm": 0}  # up to how many tokens a pass is for our kernels
Row = dict[str, Any]


class Served:
    """vLLM in this process, with its LoRA operators in our hands."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        """`folder` becomes a data directory with the adapters."""
        subprocess.run([sys.executable, "-m", "benchmarks.serving.made", "adapters", checkpoint, folder], check=True)
        paths = {name: str(Store(folder).adapter(f"{name}@v1")) for name in ADAPTERS}
        self.adapters = [LoRARequest(name, n, path) for n, (name, path) in enumerate(paths.items(), 1)]
        self.llm = LLM(
            model=str(checkpoint), **OPTIONS, **FAIR, enable_lora=True, max_loras=len(ADAPTERS), max_lora_rank=RANK,
            worker_cls="services.inference.vllm.worker.Worker",
        )  # fmt: skip

    def use(self, kernels: str) -> None:
        """Capture the graphs anew, with these kernels."""
        if lora.limit != KERNELS[kernels]:
            lora.limit = KERNELS[kernels]
            self.llm.collective_rpc(capture)

    def speed(self, streams: int, adapters: int) -> Row:
        """Tokens a second of decoding."""
        rate = decode(lambda tokens: seconds(self.llm, streams, tokens, self.adapters[:adapters]), streams)
        return {"streams": streams, "adapters": adapters, "tokens_per_second": round(rate, 1)}

    def answers(self, adapters: int) -> list[list[int]]:
        """What begins the answers of MIXED streams; the very first token comes of a pass that is vLLM's in any case."""
        asked = [{"prompt_token_ids": prompt} for prompt in prompts(MIXED, seed=0)]
        chosen = [self.adapters[n % adapters] for n in range(MIXED)] if adapters else None
        answers = self.llm.generate(asked, sampling(4), use_tqdm=False, lora_request=chosen)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    def kernels(self, streams: int, adapters: int) -> list[Row]:
        """The kernels of a step of decoding, the longest first: microseconds and calls."""
        engine = self.llm.llm_engine
        for n, prompt in enumerate(prompts(streams)):
            asked, chosen = {"prompt_token_ids": prompt}, self.adapters[n % adapters]
            engine.add_request(f"profiled-{lora.limit}-{n}", asked, sampling(3 * STEPS), lora_request=chosen)
        for _ in range(STEPS):
            engine.step()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            for _ in range(STEPS):
                engine.step()
            torch.cuda.synchronize()
        while engine.has_unfinished_requests():
            engine.step()
        found = [e for e in seen.key_averages() if e.self_device_time_total > 0]
        found.sort(key=lambda e: -e.self_device_time_total)
        return [{"us": e.self_device_time_total / STEPS, "calls": e.count / STEPS, "kernel": e.key} for e in found]


def sampling(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)


def capture(worker: Any) -> None:
    CUDAGraphWrapper.clear_all_graphs()
    worker.model_runner.capture_model()


def shown(kernels: list[Row]) -> str:
    lines = [f"{row['us']:9.1f} {row['calls']:7.1f}  {row['kernel'][:110]}" for row in kernels[:30]]
    return "\n".join([f"{sum(row['us'] for row in kernels):9.1f} us a step in all; us, calls, kernel", *lines])


def alike(some: list[list[int]], others: list[list[int]]) -> float:
    """The share of answers that are the same."""
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(some)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.adapters", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="32 streams over 8 adapters only")
    asked = parser.parse_args()
    found: list[Row] = []

    def tell(row: Row) -> None:
        found.append(row)
        print(json.dumps(row) if "table" not in row else shown(row["table"]), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        began, answers = time.monotonic(), {}
        served = Served(asked.checkpoint, Path(folder))
        tell({"device": torch.cuda.get_device_name(), "ready_s": round(time.monotonic() - began, 1)})
        for kernels in KERNELS:
            served.use(kernels)
            tell({"kernels": kernels, **served.speed(*CASES[0])})
            tell({"kernels": kernels, "table": served.kernels(*CASES[0])})
            answers[kernels] = served.answers(len(ADAPTERS))
            for case in CASES[1:] if not asked.quick else []:
                tell({"kernels": kernels, **served.speed(*case)})
        tell({"alike": alike(*answers.values()), "base_alike": alike(served.answers(0), answers["vllm"])})


if __name__ == "__main__":
    main()
