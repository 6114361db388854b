"""How long the adapters of gpt-oss-20b take in a layer, by vLLM's kernels and by ours, and which blocks suit this GPU.

python -m benchmarks.serving.tune_lora [--minutes 4] [--out FILE]

Needs a GPU and vLLM, and no checkpoint: 8 adapters of rank 16 with random weights, tokens taking turns, experts drawn. Prints a line
of JSON for each finding, the weightiest first, and keeps them in FILE; it may be ended at any time. Times are of CUDA graphs
over so many layers that no cache holds their weights, as in a model.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from vllm.config.lora import LoRAConfig
from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU

from services.inference.vllm import experts, lora
from services.inference.vllm.lora_kernels import Blocks, Rows, expand, shrink

SLOTS, RANK, HIDDEN, EXPERTS, PER_TOKEN = 8, 16, 2880, 32, 4
OUTER, INNER = experts.padded(HIDDEN, HIDDEN)  # of the experts
MANY = 1 << 20  # tokens: all of them for our kernels
REPLAYS = 20
BASE = [torch.empty(EXPERTS, 2 * INNER, OUTER, device="meta"), torch.empty(EXPERTS, OUTER, INNER, device="meta")]


@dataclass(frozen=True)
class Projection:
    """in → out of each slice; with experts, a row is a token at an expert."""

    name: str
    inputs: int
    widths: tuple[int, ...]
    experts: int = 1
    layers: int = 24

    def weights(self) -> list[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """A and B of each layer, as vLLM stacks them."""
        a = [noise(SLOTS, self.experts, RANK, self.inputs) for _ in self.widths]
        b = [noise(SLOTS, self.experts, width, RANK) for width in self.widths]
        return [([w.clone() for w in a], [w.clone() for w in b]) for _ in range(self.layers)]


GATE_UP = Projection("gate_up", OUTER, (2 * INNER,), EXPERTS, 6)
DOWN = Projection("down", INNER, (OUTER,), EXPERTS, 6)
QKV, OUT = Projection("qkv", HIDDEN, (4096, 512, 512)), Projection("o", 4096, (HIDDEN,))
ROUTER = Projection("router", HIDDEN, (EXPERTS,))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda").mul_(0.05)


class Pass:
    """A pass of some tokens: who uses which adapter and which experts."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.count = tokens, tokens * PER_TOKEN
        slots = torch.arange(tokens, device="cuda") % SLOTS
        config = LoRAConfig(max_lora_rank=RANK, max_loras=SLOTS, lora_dtype=torch.bfloat16)
        self.punica = PunicaWrapperGPU(max(tokens, 64), max(tokens, 64), torch.device("cuda"), lora_config=config)
        self.punica.token_mapping_meta.prepare_tensors(slots)
        self.slots, self.enabled = slots.int(), torch.ones(SLOTS + 1, dtype=torch.int32, device="cuda")
        routed, experts = torch.rand(tokens, EXPERTS, device="cuda").topk(PER_TOKEN)
        self.routed, self.experts = routed.softmax(-1), experts.int()

    def linear(self, projection: Projection) -> tuple[Callable[[int], None], list[torch.Tensor]]:
        """What a layer of attention or the router does, as vLLM calls it, and what it adds to."""
        layers = projection.weights()
        x, y = noise(self.tokens, projection.inputs), noise(self.tokens, sum(projection.widths))
        return lambda n: self.punica.add_lora_linear(y, x, *layers[n], 1.0, projection.widths), [y]

    def experts_of_a_layer(self) -> tuple[Callable[[int], None], list[torch.Tensor]]:
        """What a layer's experts do, as vLLM calls it, and what they add to: the order of the rows, both projections."""
        gate_up, down = GATE_UP.weights(), DOWN.weights()
        x, y = noise(self.tokens, OUTER), noise(self.count, 2 * INNER)
        inner, z = noise(self.count, INNER), noise(self.tokens, PER_TOKEN, OUTER)
        punica, (routed, enabled) = self.punica, (self.routed, self.enabled)

        def run(n: int) -> None:
            fixed = (self.tokens, PER_TOKEN, SLOTS, enabled, EXPERTS, PER_TOKEN, 1, False, False)
            order = punica.add_lora_w13(y, x, *gate_up[n], self.experts, routed, None, *BASE, *fixed)
            fixed = (self.tokens, *BASE, PER_TOKEN, SLOTS, enabled, PER_TOKEN, False, 0, False)
            punica.add_lora_w2(z, inner, *down[n], routed, *order, *fixed)

        return run, [y, z]

    def ours(self, projection: Projection) -> Callable[[int, Blocks], None]:
        """One projection by our kernels, with these blocks."""
        layers, of_experts = projection.weights(), projection.experts > 1
        rows = Rows(self.slots, self.experts.flatten(), self.enabled, PER_TOKEN) if of_experts else Rows(self.slots)
        x = noise(rows.count if projection is DOWN else self.tokens, projection.inputs)
        y, narrow = (
            noise(rows.count, sum(projection.widths)),
            torch.empty(len(projection.widths), rows.count, RANK, device="cuda"),
        )

        def run(n: int, blocks: Blocks) -> None:
            shrink(x, layers[n][0], narrow, rows, blocks)
            expand(narrow, layers[n][1], y, rows, blocks, self.routed.flatten() if projection is DOWN else None)

        return run


def microseconds(run: Callable[[int], None], layers: int) -> float:
    """Of one layer, of a CUDA graph over all of them."""
    for n in range(layers):
        run(n)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for n in range(layers):
            run(n)
    for _ in range(3):
        graph.replay()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(REPLAYS):
        graph.replay()
    ended.record()
    torch.cuda.synchronize()
    return 1000 * began.elapsed_time(ended) / REPLAYS / layers


def compare(name: str, tokens: int) -> dict[str, Any]:
    """vLLM's kernels against ours: microseconds a layer, and by how much what they add differs, of the largest delta."""
    step = Pass(tokens)
    projection = {"qkv": QKV, "o": OUT, "router": ROUTER}.get(name)
    run, outs = step.linear(projection) if projection else step.experts_of_a_layer()
    took, deltas = [], []
    for limit in (0, MANY):
        lora.limit = limit
        for out in outs:
            out.zero_()
        run(0)
        deltas.append(torch.cat([out.flatten().float() for out in outs]))
        took.append(microseconds(run, projection.layers if projection else GATE_UP.layers))
    difference = (deltas[0] - deltas[1]).abs().max() / deltas[0].abs().max()
    found = {"compare": name, "tokens": tokens, "vllm_us": round(took[0], 2), "ours_us": round(took[1], 2)}
    return {**found, "difference": round(difference.item(), 5)}


def tune(projection: Projection, tokens: int, over: Callable[[], bool]) -> dict[str, Any]:
    """The fastest blocks, first those of the second kernel, then those of the first."""
    run = Pass(tokens).ours(projection)
    best = lora.blocks()
    default = least = microseconds(lambda n: run(n, best), projection.layers)
    for changed in candidates():
        tried = replace(best, **changed)
        if over():
            break
        took = microseconds(lambda n, tried=tried: run(n, tried), projection.layers)
        if took < least:
            best, least = tried, took
    found = {"tune": projection.name, "tokens": tokens, "default_us": round(default, 2), "best_us": round(least, 2)}
    return {**found, "blocks": asdict(best)}


def candidates() -> Iterator[dict[str, Any]]:
    yield {"overlap": False}
    yield from ({"outputs": n, "expand_warps": w} for n, w in itertools.product((128, 256, 512), (2, 4, 8)))
    for ranks, inputs, warps in itertools.product((1, 2, 4, 8, 16), (512, 1024, 4096), (2, 4, 8)):
        if 8 <= ranks * inputs / (32 * warps) <= 64:  # values of a thread: full loads, and they fit its registers
            yield {"ranks": ranks, "inputs": inputs, "shrink_warps": warps}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.tune_lora", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    end = time.monotonic() + 60 * asked.minutes
    over = lambda: time.monotonic() > end  # noqa: E731
    torch.manual_seed(0)
    lora.install()
    found: list[dict[str, Any]] = []
    names, kinds = ("experts", "qkv", "o", "router"), (GATE_UP, DOWN, QKV, OUT)
    work: list[Callable[[], dict[str, Any]]] = []
    for tokens in (32, 1, 128, 8, 256):
        work += [lambda n=name, t=tokens: compare(n, t) for name in names]
    work[len(names) : len(names)] = [lambda p=projection: tune(p, 32, over) for projection in kinds]
    work += [lambda p=projection, t=tokens: tune(p, t, over) for tokens in (1, 128) for projection in kinds]
    for each in work:
        if over():
            break
        found.append(each())
        print(json.dumps(found[-1]), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps({"device": torch.cuda.get_device_name(), "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
