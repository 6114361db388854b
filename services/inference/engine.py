"""The engine: token ids in, token ids out. Unsloth's model on a GPU or a CPU, with adapters put on and off by request."""

import gc
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

KEPT_ADAPTERS = 8


class Unavailable(RuntimeError):
    """What is to answer cannot now; the message says why and what to do."""

    code = "backend_unavailable"
    retry_after = 5  # seconds


class Closed(RuntimeError):
    """The engine was closed while it answered."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Temperature 0 takes the likeliest one."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Weights:
    """What answers: the base where `adapter` is None, else the adapter in that folder, known by its hash."""

    name: str
    sha256: str
    adapter: Path | None = None


class Engine(Protocol):
    """What the HTTP layer needs of an engine."""

    name: str

    def generate(
        self, prompt: list[int], sampling: Sampling, weights: Weights, stop: threading.Event, stops: tuple[int, ...]
    ) -> Iterator[int]:
        """Yield token ids until one of `stops` (it is yielded too), `sampling.max_tokens`, or `stop` is set."""
        ...


class UnslothEngine:
    """One model in memory. Sequences take turns, a token each, so that none waits for another to end."""

    name = "unsloth"

    def __init__(self, folder: Path, context_tokens: int) -> None:
        """Load the base model of a snapshot folder."""
        import torch
        import unsloth  # noqa: F401  # before transformers and peft, which it patches
        from unsloth import FastLanguageModel

        cuda = torch.cuda.is_available()
        self.model: Any
        self.model, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=context_tokens,
            dtype=None if cuda else torch.float32,
            load_in_4bit=cuda,
            local_files_only=True,
        )
        FastLanguageModel.for_inference(self.model)
        self.model.eval()
        self.device = next(self.model.parameters()).device
        self.turn = threading.Lock()
        self.loaded: OrderedDict[str, str] = OrderedDict()  # sha256 -> PEFT's name, the last used at the end
        self.active: str | None = None

    def generate(
        self, prompt: list[int], sampling: Sampling, weights: Weights, stop: threading.Event, stops: tuple[int, ...]
    ) -> Iterator[int]:
        import torch

        generator = torch.Generator("cpu")
        generator.manual_seed(sampling.seed) if sampling.seed is not None else generator.seed()
        step, cache = torch.tensor([prompt], device=self.device), None
        for _ in range(sampling.max_tokens):
            if stop.is_set():
                return
            with self.turn, torch.inference_mode():
                if self.model is None:
                    raise Closed
                self._put_on(weights)
                out = self.model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            token = draw(out.logits[0, -1].float().cpu(), sampling, generator)
            yield token
            if token in stops:
                return
            step = torch.tensor([[token]], device=self.device)

    def close(self) -> None:
        """Give the memory back; answers in progress end with Closed at their next token. May be called again."""
        with self.turn:
            self.model = self.active = None
            self.loaded.clear()
        give_memory_back()

    def _put_on(self, weights: Weights) -> None:
        """Make `weights` the ones that the next forward pass uses. Called with the turn held."""
        if weights.adapter is None:
            if self.active is not None:
                self.model.base_model.disable_adapter_layers()
                self.active = None
            return
        if weights.sha256 not in self.loaded:
            self._load(weights)
        self.loaded.move_to_end(weights.sha256)
        if self.active != weights.sha256:
            self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(self.loaded[weights.sha256])
            self.active = weights.sha256

    def _load(self, weights: Weights) -> None:
        from peft import PeftModel

        name = f"a{weights.sha256[:16]}"
        if isinstance(self.model, PeftModel):
            if len(self.loaded) >= KEPT_ADAPTERS:
                _, oldest = self.loaded.popitem(last=False)
                self.model.delete_adapter(oldest)
            self.model.load_adapter(str(weights.adapter), adapter_name=name, is_trainable=False)
        else:
            self.model = PeftModel.from_pretrained(
                self.model, str(weights.adapter), adapter_name=name, is_trainable=False
            )
        self.model.eval()
        self.loaded[weights.sha256] = name
        self.active = None


def give_memory_back() -> None:
    """Let the GPU have what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def draw(logits: Any, sampling: Sampling, generator: Any) -> int:
    """One token id from `logits` (vocabulary,), fp32."""
    import torch

    if sampling.temperature <= 0:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits[logits < logits.topk(min(sampling.top_k, len(logits))).values[-1]] = -torch.inf
    probabilities = logits.softmax(-1)
    if sampling.min_p:
        probabilities[probabilities < sampling.min_p * probabilities.max()] = 0
    if sampling.top_p < 1:
        ordered, indices = probabilities.sort(descending=True)
        ordered[(ordered.cumsum(-1) - ordered) > sampling.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(0, indices, ordered)
    return int(torch.multinomial(probabilities, 1, generator=generator))
