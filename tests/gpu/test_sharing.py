"""The memory of a real GPU: given back while a run needs it, taken again afterwards. pytest -m gpu tests/gpu"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.inference import residence
from services.inference.engine import Sampling, Weights
from services.inference.gguf import pieces
from services.inference.residence import Away, Base, Residence
from services.inference.unsloth.engine import UnslothEngine
from shared.harmony import Encoder
from shared.settings import Settings
from tests.unit.test_residence import read

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
MIB = 1 << 20
PROMPT = "<|start|>user<|message|>When are you open?<|end|><|start|>assistant"


class Scene:
    """The tiny model on the GPU; `run` is the run that needs it, `moment` the time."""

    def __init__(self, folder: Path, encoder: Encoder, settings: Settings) -> None:
        self.run: str | None = None
        self.moment = 0.0
        self.prompt = encoder.encode(pieces(PROMPT))
        base = Base(folder, encoder, "0")
        self.residence = Residence(
            UnslothEngine.name,
            lambda: base,
            lambda base: UnslothEngine(base.folder, settings),
            lambda: self.run,
            lambda: self.moment,
        )

    def after(self, seconds: float, run: str | None) -> str:
        self.moment, self.run = self.moment + seconds, run
        self.residence.step()
        return self.residence.state

    def ask(self, tokens: int) -> Iterator[int]:
        return read(self.residence.generate(self.prompt, Sampling(tokens, temperature=0), Weights("base", "0")))


@pytest.fixture(scope="module")
def scene(harmony_tokenizer_dir: Path, encoder: Encoder) -> Scene:
    folder = harmony_tokenizer_dir
    settings = Settings(data=folder, hf_home=folder, redis_url="redis://127.0.0.1:1/0", context_tokens=2048)
    return Scene(folder, encoder, settings)


def memory() -> tuple[int, int]:
    """Bytes that tensors have, and that torch keeps of the GPU; cuBLAS's own workspace is not the model's."""
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def test_the_memory_is_given_back_and_the_answer_is_the_same_afterwards(scene: Scene) -> None:
    assert scene.after(0, None) == "ready"
    before = list(scene.ask(24))
    assert torch.cuda.memory_allocated() > 20 * MIB, "the tiny model is on the GPU"
    for _ in range(3):
        assert scene.after(1, "train-1") == "asleep"
        allocated, reserved = memory()
        assert allocated < MIB and reserved < 8 * MIB, (allocated, reserved)
        assert scene.after(residence.CALM_SECONDS, None) == "ready"
        assert list(scene.ask(24)) == before


def test_an_answer_that_was_ended_keeps_nothing_of_the_gpu(scene: Scene) -> None:
    assert scene.after(residence.CALM_SECONDS, None) == "ready"
    answer = scene.ask(1000)
    next(answer)
    assert scene.after(1, "train-1") == "leaving"
    assert scene.after(residence.PATIENCE_SECONDS, "train-1") == "leaving"
    with pytest.raises(Away, match="train-1 has the GPU"):
        list(answer)
    assert scene.after(0.1, "train-1") == "asleep"
    allocated, reserved = memory()
    assert allocated < MIB and reserved < 8 * MIB, (allocated, reserved)
