"""Where the product is measured: a data directory with a base model and adapters, and its own programs over it."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving.child import Child
from benchmarks.serving.clients import Address
from benchmarks.serving.speed import ADAPTERS
from services.cli import stack_files
from services.cli.stack_files import HOST, Layout
from shared import auth, registry
from shared.store import Store

ROOT = Path(__file__).resolve().parents[2]
BASE = "tandem/benchmark"  # the checkpoint's name in the cache
COMMIT = "0" * 40
START_SECONDS, WAY_IN_SECONDS = 400.0, 60.0  # the first with kernels to be compiled
HOPELESS = ("could not be loaded", "TANDEM_ENGINE is")  # the server says so, and tries again for ever


@dataclass(frozen=True)
class Place:
    """The folder `work` with everything that is made, and the port that nginx is to have; the services take those after it."""

    work: Path
    checkpoint: Path
    port: int

    @property
    def layout(self) -> Layout:
        return Layout(ROOT, self.work / "stack", self.port)

    @property
    def vllm_says(self) -> Path:
        """What bare vLLM gives as next tokens, for the proof."""
        return self.work / "vllm.npz"

    @property
    def ours_says(self) -> Path:
        """What the product's server gives as next tokens."""
        return self.work / "ours.json"

    def prepare(self) -> None:
        """Put the checkpoint into a Hugging Face cache, and adapters into the registry, unless they are there."""
        stack_files.write(self.layout)
        repository = self.layout.folder / "hf" / "hub" / f"models--{BASE.replace('/', '--')}"
        for folder in (repository / "snapshots", repository / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(COMMIT)
        link = repository / "snapshots" / COMMIT
        link.unlink(missing_ok=True)
        link.symlink_to(self.checkpoint)
        if {card.name for card in registry.adapters(Store(self.layout.data))} < set(ADAPTERS):
            self.make("adapters", self.layout.data)

    def make(self, kind: str, target: Path) -> None:
        """What `benchmarks.serving.made` makes of the checkpoint. Raises RuntimeError."""
        with self.python(f"made-{kind}", "benchmarks.serving.made", kind, str(self.checkpoint), str(target)) as child:
            for _ in child.lines():
                pass

    def program(self, name: str, command: list[str], **environment: str) -> Child:
        """A program, in the surroundings that the benchmark itself has, and what else of them is named."""
        return Child(name, command, self.log(name), {**os.environ, **here(), **environment}, ROOT)

    def python(self, name: str, module: str, *arguments: str, **environment: str) -> Child:
        """A module of the benchmark, in the same surroundings."""
        return self.program(name, [sys.executable, "-m", module, *arguments], **environment)

    def service(self, program: str, name: str | None = None, **settings: str) -> Child:
        """One of the product's programs, as its local stack starts it, with these settings beside the usual ones. Its log has
        the program's name, or another."""
        fixed = {"HF_HOME": str(self.layout.folder / "hf"), **here()}
        environment = stack_files.environment(self.layout, base_model=BASE, extra=fixed | settings)
        return Child(program, stack_files.commands(self.layout)[program], self.log(name or program), environment, ROOT)

    def log(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.log"

    @contextmanager
    def server(self, name: str, **settings: str) -> Iterator[tuple[Address, float]]:
        """The inference server, ready to answer, and the seconds that took; `name` is its log's. Raises RuntimeError."""
        address = Address(f"http://{HOST}:{self.layout.ports['inference']}")
        with self.service("inference", name, **settings) as child:
            yield address, child.wait(lambda: _missing(address.url), START_SECONDS)

    @contextmanager
    def way_in(self) -> Iterator[Address]:
        """nginx before the server, with the dashboard that it asks whether a key is good. Raises RuntimeError."""
        with ExitStack() as running:
            children = [running.enter_context(self.service(name)) for name in ("redis", "dashboard", "nginx")]
            children[-1].wait(lambda: _missing(self.layout.url), WAY_IN_SECONDS)
            key, _ = auth.create_key(Store(self.layout.data), "benchmark")
            yield Address(self.layout.url, key)


def here() -> dict[str, str]:
    """Where Python finds the product, and whatever it found already."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _missing(url: str) -> str | None:
    """What is still to come before the service answers, by its own word; None once it does. Raises RuntimeError when it cannot."""
    try:
        answer = httpx.get(f"{url}/health", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return "no answer yet"
    if any(words in answer.text for words in HOPELESS):
        raise RuntimeError(f"The server says: {answer.text.strip()}. Its log has more.")
    return None if answer.status_code == 200 else answer.text.strip()
