"""A training run as the product makes it, and what its events say of speed, memory and start."""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.training import mix
from services.trainer import ranks
from services.trainer.supervise import supervise
from shared import recipes, runs
from shared.datasets import ingest
from shared.schemas import Job, RunSpec
from shared.settings import Settings
from shared.store import Store, publish

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "redis://127.0.0.1:1/0"  # no queue is needed
WARM = 4  # steps that are left out: kernels are compiled in them


@dataclass(frozen=True)
class Place:
    """A data directory for the time of the benchmark."""

    settings: Settings
    store: Store

    @classmethod
    def make(cls, base: str) -> "Place":
        data = Path(tempfile.mkdtemp(prefix="tandem-benchmark-"))
        home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
        settings = Settings(data=data, hf_home=home, base_model=base, min_free_bytes=0, redis_url=NOWHERE)
        return cls(settings, Store(data))

    def environment(self) -> dict[str, str]:
        mine = {"TANDEM_DATA": self.settings.data, "HF_HOME": self.settings.hf_home}
        fixed = {"TANDEM_BASE_MODEL": self.settings.base_model, "REDIS_URL": NOWHERE}
        return {**os.environ, **{k: str(v) for k, v in mine.items()}, **fixed, "HF_HUB_OFFLINE": "1"}

    def dataset(self, name: str, tokens: list[int]) -> str:
        """A data set of conversations of these lengths; its reference."""
        source = self.store.root / f"{name}.jsonl"
        mix.write(source, tokens)
        with self.store.staging(self.store.datasets()) as staged:
            card = ingest(source, source.name, staged / "data", count_tokens=None, name=name)
            publish(staged / "data", self.store.datasets() / name / card.version)
        return f"{name}@{card.version}"

    def run(self, dataset: str, recipe: str = "standard", **values: Any) -> dict[str, Any]:
        """Train, and return {"run", "tokens_per_second", "reserved_gib", "start_s", "seconds", "memory"}. The speed is that of
        all steps after the first, with what is written between them.

        Raises RuntimeError with the last words of a run that failed."""
        plain = {"validation_share": 0.0, "evaluate_every": None, "target_loss": None}
        resolved = recipes.resolve(recipe, {**plain, **values}).model_copy(
            update={"base_model": self.settings.base_model}
        )
        job = Job(dataset=dataset, recipe=recipe, name="benchmark")
        spec = runs.create(self.store, runs.new_id("train"), "train", job, resolved)
        seconds, began = self.child(spec, "services.trainer.train")
        metrics = [e for e in runs.all_events(self.store, spec.id, "metric") if "loss" in e]
        first = datetime.fromisoformat(metrics[0]["time"]).timestamp()
        return {
            "run": spec.id,
            "tokens_per_second": statistics.harmonic_mean(e["tokens_per_second"] for e in metrics[WARM:]),
            "reserved_gib": max(e["memory_bytes"] for e in metrics) / 2**30,
            "start_s": first - began,
            "seconds": seconds,
            "memory": list(runs.all_events(self.store, spec.id, "memory"))[-1],
        }

    def child(self, spec: RunSpec, module: str) -> tuple[float, float]:
        """(seconds, moment of the start) of a run's processes. Raises RuntimeError if they fail."""
        runs.claim(self.store, spec.id, 1, "benchmark")
        began, log = time.time(), self.store.run(spec.id) / "log.txt"
        gpus = spec.recipe.gpus if spec.recipe else 1
        environments = [self.environment() | more for more in ranks.environments(gpus)]
        code = supervise(
            [sys.executable, "-m", module, spec.id],
            log,
            environments=environments,
            beat=lambda: None,
            beat_seconds=5,
            stop=lambda: False,
            grace_seconds=5,
        )
        say(f"{spec.id} took {time.time() - began:.0f} s")
        if code:
            raise RuntimeError(f"{module} ended with {code}: {log.read_text(errors='replace')[-3000:]}")
        return time.time() - began, began


def say(text: str) -> None:
    """What goes on, for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@functools.cache
def bare(folder: Path, *shapes: str) -> dict[str, dict[str, Any]]:
    """The baseline's figures by shape."""
    command = [sys.executable, "-m", "benchmarks.training.bare", str(folder), *shapes]
    say(f"bare Unsloth: {', '.join(shapes)}")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"shape"')]
    if done.returncode or len(found) < len(shapes):
        raise RuntimeError(f"The baseline ended with {done.returncode}: {done.stdout[-3000:]}")
    return {row["shape"]: row for row in found}
