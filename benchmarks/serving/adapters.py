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
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile
from vllm import LLM, SamplingParams
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.lora.request import LoRARequest

from services.inference.vllm import lora

ADAPTERS, RANK, PROMPT, TOKENS, ROUNDS = 8, 16, 128, 128, 2
CASES = [(32, 8), (32, 0), (1, 1), (128, 8), (8, 8), (32, 1), (1, 0)]  # streams, adapters among them
STEPS = 16  # of a profile
KERNELS = {"ours": lora.TOKENS, "vllm": 0}  # up to how many tokens a pass is for our kernels
Row = dict[str, Any]


def made(folder: Path, base: Path, seed: int) -> Path:
    """A random adapter as PEFT saves it: with `target_parameters`, gate_up is the inner layer and rank and expert are one axis."""
    config = json.loads((base / "config.json").read_text())
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    heads, groups = (
        config["num_attention_heads"] * config["head_dim"],
        config["num_key_value_heads"] * config["head_dim"],
    )
    shapes = {"self_attn.q_proj": (heads, hidden), "self_attn.o_proj": (hidden, heads)}
    shapes |= {"self_attn.k_proj": (groups, hidden), "self_attn.v_proj": (groups, hidden)}
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        of_experts = {"mlp.experts.base_layer": (2 * inner, hidden), "mlp.experts": (hidden, inner)}
        for name, (wide, narrow) in (shapes | of_experts).items():
            rank = RANK * experts if name in of_experts else RANK
            begin = f"base_model.model.model.layers.{layer}.{name}.lora_"
            tensors[f"{begin}A.weight"] = (
                torch.randn(rank, narrow, dtype=torch.bfloat16, device="cuda").mul_(narrow**-0.5).cpu()
            )
            tensors[f"{begin}B.weight"] = torch.randn(wide, rank, dtype=torch.bfloat16, device="cuda").mul_(0.02).cpu()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none"}
    told |= {"target_modules": [name.split(".")[-1] for name in shapes], "base_model_name_or_path": str(base)}
    told |= {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


class Served:
    """vLLM in this process, with its LoRA operators in our hands."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        paths = [made(folder / str(n), checkpoint, n) for n in range(ADAPTERS)]
        self.adapters = [LoRARequest(f"adapter-{n}", n, str(path)) for n, path in enumerate(paths, 1)]
        self.llm = LLM(
            model=str(checkpoint), max_model_len=2048, gpu_memory_utilization=0.6, max_num_seqs=128,
            skip_tokenizer_init=True, enable_prefix_caching=False, enable_lora=True, max_loras=ADAPTERS, max_lora_rank=RANK,
            worker_cls="services.inference.vllm.worker.Worker",
            compilation_config={"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128]},
        )  # fmt: skip

    def use(self, kernels: str) -> None:
        """Capture the graphs anew, with these kernels."""
        if lora.limit != KERNELS[kernels]:
            lora.limit = KERNELS[kernels]
            self.llm.collective_rpc(capture)

    def asked(self, streams: int, adapters: int) -> tuple[list[dict[str, list[int]]], list[LoRARequest] | None]:
        draw = random.Random(streams)
        prompts = [{"prompt_token_ids": [draw.randrange(199_000) for _ in range(PROMPT)]} for _ in range(streams)]
        return prompts, [self.adapters[n % adapters] for n in range(streams)] if adapters else None

    def seconds(self, streams: int, adapters: int, tokens: int) -> tuple[float, list[list[int]]]:
        """How long all answers of so many tokens take, and the answers."""
        prompts, chosen = self.asked(streams, adapters)
        began = time.monotonic()
        answers = self.llm.generate(prompts, sampling(tokens), use_tqdm=False, lora_request=chosen)
        return time.monotonic() - began, [list(answer.outputs[0].token_ids) for answer in answers]

    def speed(self, streams: int, adapters: int) -> Row:
        """Tokens a second of decoding: the best of the rounds after one that reads the adapters and compiles."""
        self.seconds(streams, adapters, 4)
        least = min(
            self.seconds(streams, adapters, TOKENS)[0] - self.seconds(streams, adapters, 1)[0] for _ in range(ROUNDS)
        )
        rate = (TOKENS - 1) * streams / least
        return {"streams": streams, "adapters": adapters, "tokens_per_second": round(rate, 1)}

    def kernels(self, streams: int, adapters: int) -> list[Row]:
        """The kernels of a step of decoding, the longest first: microseconds and calls."""
        prompts, chosen = self.asked(streams, adapters)
        engine = self.llm.llm_engine
        for n, prompt in enumerate(prompts):
            adapter = chosen[n] if chosen else None
            engine.add_request(
                f"profiled-{adapters}-{n}-{lora.limit}", prompt, sampling(3 * STEPS), lora_request=adapter
            )
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
    return SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False)


def capture(worker: Any) -> None:
    CUDAGraphWrapper.clear_all_graphs()
    worker.model_runner.capture_model()


def shown(kernels: list[Row]) -> str:
    lines = [f"{row['us']:9.1f} {row['calls']:7.1f}  {row['kernel'][:110]}" for row in kernels[:30]]
    return "\n".join([f"{sum(row['us'] for row in kernels):9.1f} us a step in all; us, calls, kernel", *lines])


def alike(some: list[list[int]], others: list[list[int]]) -> float:
    """How many answers begin with the same tokens; the very first comes from a pass that is vLLM's in both."""
    return sum(a[:4] == b[:4] for a, b in zip(some, others, strict=True)) / len(some)


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
            answers[kernels] = served.seconds(*CASES[0], 8)[1]
            for case in CASES[1:] if not asked.quick else []:
                tell({"kernels": kernels, **served.speed(*case)})
        base = served.seconds(CASES[0][0], 0, 8)[1]
        tell({"alike": alike(*answers.values()), "base_alike": alike(base, answers["vllm"])})


if __name__ == "__main__":
    main()
