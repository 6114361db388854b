"""The baseline: vLLM's `LLM` without a server around it, with its own defaults. CUDA graphs are recorded of the sizes alone that
are measured, since each takes a start half a second.

python -m benchmarks.serving.bare CHECKPOINT                      the base, by streams
python -m benchmarks.serving.bare CHECKPOINT OUT.npz ADAPTER...   32 streams over these adapters, nothing tuned

Prints a line of JSON for each: {"name", "value"}, tokens a second. OUT.npz gets what base and first adapter give all tokens
of the vocabulary as the next one: natural log-probabilities [prompts, vocabulary] as `base` and `adapter`.
"""

import os

os.environ |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"  # nothing is drawn here; compiling it takes a minute and a half
os.environ.pop("VLLM_TUNED_CONFIG_FOLDER", None)

import sys
import time
from pathlib import Path

import numpy as np
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from benchmarks.serving.speed import MIXED, PROOF_PROMPTS, PROOF_TOKENS, RANK, STREAMS, decode, prompts, tell

OPTIONS = {
    "max_model_len": 2048,
    "gpu_memory_utilization": 0.6,
    "max_num_seqs": max(STREAMS),
    "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128]},
}
FAIR = {"skip_tokenizer_init": True, "enable_prefix_caching": False}  # tokens only; no prompt comes twice


def main(checkpoint: str, out: str | None, adapters: list[str]) -> None:
    lora = {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": RANK, "max_logprobs": -1}
    llm = LLM(model=checkpoint, **OPTIONS, **FAIR, **(lora if adapters else {}))
    requests = [LoRARequest(Path(folder).parent.name, n, folder) for n, folder in enumerate(adapters, 1)]
    if out:
        tell("bare_adapters_8", decode(lambda tokens: seconds(llm, MIXED, tokens, requests), MIXED))
        np.savez(out, base=next_tokens(llm, None), adapter=next_tokens(llm, requests[0]))
        return
    for streams in STREAMS:
        tell(f"bare_{streams}", decode(lambda tokens, streams=streams: seconds(llm, streams, tokens, []), streams))


def seconds(llm: LLM, streams: int, tokens: int, adapters: list[LoRARequest]) -> float:
    """Of answers of `tokens` tokens to as many prompts as there are streams, the adapters taking turns."""
    asked = [{"prompt_token_ids": prompt} for prompt in prompts(streams)]
    chosen = [adapters[n % len(adapters)] for n in range(streams)] if adapters else None
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    began = time.monotonic()
    llm.generate(asked, sampling, use_tqdm=False, lora_request=chosen)
    return time.monotonic() - began


def next_tokens(llm: LLM, adapter: LoRARequest | None) -> np.ndarray:
    """Natural log-probabilities of all tokens after each prompt of the proof [prompts, vocabulary]."""
    asked = [{"prompt_token_ids": prompt} for prompt in prompts(PROOF_PROMPTS, PROOF_TOKENS, seed=0)]
    sampling = SamplingParams(temperature=0, max_tokens=1, logprobs=-1, detokenize=False)
    rows = []
    for answer in llm.generate(asked, sampling, use_tqdm=False, lora_request=adapter):
        told = answer.outputs[0].logprobs[0]
        rows.append([told[token].logprob for token in range(len(told))])
    return np.array(rows, dtype=np.float32)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None, sys.argv[3:])
