"""Run the parts that are named, merge their rows into training.json, and write training.md anew."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks import rows
from benchmarks.training import report
from benchmarks.training.mix import lengths
from benchmarks.training.ours import ROOT, WARM, Place, bare, say
from services.trainer.served import Served
from shared import hub, recipes, runs
from shared.schemas import Job

Row = dict[str, Any]
SHORT, LONG = "2x8x1024", "4x1x4096"
LIKE_BARE = {"lora_rank": 8, "lora_alpha": 16}
COUNTED = WARM + 25  # steps of a run: a checkpoint of the recipe `standard` is among those that count
A_PROCESS = 26 << 30  # bytes that a measurement of memory takes of the GPU at most
MEMORY = [
    ({"lora_rank": 8}, ["1x1024", "2x1024", "4x1024", "4x4096"]),
    ({"lora_rank": 16}, ["2x1024", "1x8192"]),
    ({"lora_rank": 64, "optimizer": "adamw_torch_fused"}, ["1x1024", "2x2048"]),
    ({"lora_rank": 8, "offload_embedding": True}, ["1x1024", "1x512", "2x4096"]),
    ({"lora_rank": 16, "train_experts": False}, ["1x1024", "4x2048"]),
]


def overhead(base: str, nf4: str) -> Iterator[Row]:
    """Our whole recipe against bare Unsloth, on rows that fill each batch."""
    place = Place.make(base)
    full = place.dataset("full", [4600] * 120)
    theirs = bare(snapshot(base), SHORT, LONG)
    short = place.run(full, steps=COUNTED, max_length=1024, **LIKE_BARE)
    told = f"the whole recipe at {SHORT}, as many rows at once as there is room for, against bare Unsloth; rank 8"
    yield ratio("overhead_short", short, theirs[SHORT], told)
    long = place.run(full, steps=COUNTED, max_length=4096, batch_size=4, accumulation=1, **LIKE_BARE)
    yield ratio("overhead_long", long, theirs[LONG], f"the whole recipe at {LONG} against bare Unsloth, rank 8")


def packing(base: str, nf4: str) -> Iterator[Row]:
    """Packed against dense, MXFP4 against NF4, ours against the plain recipe: useful tokens a second."""
    place = Place.make(base)
    mixed = place.dataset("mixed", lengths(1200))
    shape = {"packing": True, "max_length": 4096, "batch_size": 4, "accumulation": 1, **LIKE_BARE}
    packed = place.run(mixed, steps=COUNTED, **shape)
    told = "process start to the end of the first optimizer step, its kernels compiled by an earlier run"
    yield row("start_s", place.run(mixed, steps=WARM + 1, **shape)["start_s"], 60, "s", told)
    dense = bare(snapshot(base), SHORT, LONG)[LONG]
    told = f"the mix packed into 4 rows of 4,096, against bare {LONG} of full rows"
    yield ratio("packed_vs_dense", packed, dense, told)
    told = "the mix: ours packed in MXFP4, against bare Unsloth in NF4, padded, 2x8"
    yield ratio("ours_vs_seed", packed, bare(snapshot(nf4), "mix")["mix"], told)


def forms(base: str, nf4: str) -> Iterator[Row]:
    """The same recipe in MXFP4 and in NF4, on rows that fill each batch."""
    speeds = []
    for model in (base, nf4):
        place = Place.make(model)
        full = place.dataset("full", [4600] * 120)
        speeds.append(place.run(full, steps=WARM + 8, max_length=1024, fill_memory=False, **LIKE_BARE))
    yield ratio("mxfp4_vs_nf4", *speeds, f"the same recipe on both checkpoints, {SHORT}, two rows at once")


def long(base: str, nf4: str) -> Iterator[Row]:
    """The longest sequence within 80 and within 24 GiB."""
    values = {"lora_rank": 8, "offload_embedding": True}
    for name, cap, length in (("longest_tokens", 80, 131_072), ("longest_tokens_24", 24, 20_480)):
        found = memory(base, values, [f"1x{length}"], CAP_GIB=str(cap))[0]
        gib, speed = found["measured"]["reserved"] / 2**30, found["tokens_per_second"]
        told = f"trained within {cap} GiB, {gib:.1f} GiB reserved, {speed:,.0f} tokens/s; baseline: what is asked for"
        yield row(name, length, {80: 131_072, 24: 20_000}[cap], "tokens", told)


def footprint(base: str, nf4: str) -> Iterator[Row]:
    """Peak memory of many configurations; the table has them beside what is predicted."""
    side_by_side = max(1, torch.cuda.mem_get_info()[0] // A_PROCESS)
    with ThreadPoolExecutor(side_by_side) as pool:
        found = list(chain.from_iterable(pool.map(lambda one: memory(base, *one), MEMORY)))
    (rows.FOLDER / "memory.json").write_text(json.dumps(found, indent=1) + "\n")
    small = found_at(found, 8, "1x1024", offload_embedding=True)
    standard = found_at(found, recipes.resolve("standard").lora_rank, "2x1024", offload_embedding=False)
    told = "peak reserved of the recipe standard, rank 16, 2x8x1024; baseline: bare Unsloth of rank 8"
    yield row("standard_gib", standard["measured"]["reserved"] / 2**30, 16.2, "GiB", told)
    told = "peak reserved at 1x1024, rank 8, experts trained, embedding offloaded; baseline: bare Unsloth"
    yield row("memory_efficient_gib", small["measured"]["reserved"] / 2**30, 14.6, "GiB", told)


def found_at(found: list[dict[str, Any]], rank: int, shape: str, *, offload_embedding: bool) -> dict[str, Any]:
    wanted = {"lora_rank": rank, "batch_size": int(shape.split("x")[0]), "max_length": int(shape.split("x")[1])}
    wanted |= {"offload_embedding": offload_embedding, "train_experts": True}
    return next(f for f in found if wanted.items() <= f["recipe"].items())


def several(base: str, nf4: str) -> Iterator[Row]:
    """Two GPUs against one, with the same effective batch."""
    place = Place.make(base)
    full = place.dataset("full", [4600] * 200)
    shape = {
        "steps": WARM + 8,
        "max_length": 4096,
        "batch_size": 4,
        "accumulation": 2,
        "fill_memory": False,
        **LIKE_BARE,
    }
    one, two = place.run(full, **shape), place.run(full, **shape, gpus=2)
    yield ratio("two_gpus", two, one, "data parallel on two GPUs against one, 4x2x4096")


def whole(base: str, nf4: str) -> Iterator[Row]:
    """Everything that a person waits for at full size, on one GPU machine."""
    place = Place.make(base)
    mixed = place.dataset("mixed", lengths(400))
    began = time.monotonic()
    trained = place.run(mixed, steps=20, validation_share=0.1)
    job = Job(adapter="benchmark@v1", encoding="MXFP4")
    spec = runs.create(place.store, runs.new_id("export"), "export", job)
    exported, _ = place.child(spec, "benchmarks.training.unjudged")
    answered = first_answer(next(place.store.exports().glob("*.gguf")))
    told = (
        f"standard, 20 steps with proof and publishing {trained['seconds']:.0f} s, MXFP4 GGUF with its parity "
        f"{exported:.0f} s, first answer of llama.cpp {answered:.0f} s; baseline: what is asked for. Parity is measured and "
        "not judged: random weights have no likeliest token"
    )
    yield row("chain_s", time.monotonic() - began, 600, "s", told)


def first_answer(export: Path) -> float:
    """Seconds from the start of llama.cpp's server to its first answer."""
    began = time.monotonic()
    with Served(export) as served:
        served.read([[200006, 1, 2, 3]], [[4]], 1)
    return time.monotonic() - began


PARTS: dict[str, Callable[[str, str], Iterator[Row]]] = {
    "overhead": overhead, "packing": packing, "forms": forms, "long": long, "footprint": footprint, "several": several, "chain": whole,
}  # fmt: skip


def memory(base: str, values: dict[str, Any], shapes: list[str], **environment: str) -> list[dict[str, Any]]:
    say(f"memory: {values} at {', '.join(shapes)}")
    command = [sys.executable, "-m", "benchmarks.training.memory", base, json.dumps(values), *shapes]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"recipe"')]
    if len(found) < len(shapes):
        print(f"{values} {shapes} ended with {done.returncode}: {done.stdout[-2500:]}", flush=True)
    return found


def ratio(name: str, mine: dict[str, Any], theirs: dict[str, Any], method: str) -> Row:
    return row(name, mine["tokens_per_second"], theirs["tokens_per_second"], "tokens/s", method)


def row(name: str, ours: float, baseline: float, unit: str, method: str) -> Row:
    found = {"name": name, "ours": round(ours, 2), "baseline": round(baseline, 2), "ratio": round(ours / baseline, 4)}
    return {**found, "unit": unit, "device": torch.cuda.get_device_name(), "date": rows.today(), "method": method}


def snapshot(repository: str) -> Path:
    return hub.snapshot(repository, "main", Path(os.environ["HF_HOME"]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--base", default="openai/gpt-oss-20b")
    parser.add_argument("--nf4", default="unsloth/gpt-oss-20b-unsloth-bnb-4bit")
    asked = parser.parse_args()
    for part in asked.parts:
        try:
            for found in PARTS[part](asked.base, asked.nf4):
                print(json.dumps(found), flush=True)
                rows.keep(report.JSON, found)
        except RuntimeError as error:  # the other parts are measured all the same
            print(f"{part}: {error}", flush=True)
    report.write()


if __name__ == "__main__":
    main()
