"""Many answers in one batch are what each would be alone: token for token transformers' own, and the same for a seed."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GptOssForCausalLM

from services.inference.engine import Sampling, Token, Weights
from services.inference.unsloth import schedule as scheduling
from services.inference.unsloth.batch import Batch
from services.inference.unsloth.cells import Cells
from services.inference.unsloth.schedule import Schedule, Sequence
from tests.unit.tiny_adapter import make_adapter
from tests.unit.tiny_gpt_oss import VOCAB, tiny

CELLS = 400
STOPS = tuple(range(0, VOCAB, 23))
PROMPTS = torch.randint(0, VOCAB, (3, 90), generator=torch.Generator().manual_seed(5)).tolist()
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
LONGEST = 12


class Scene:
    """A batch over the tiny base with two adapters of it, and transformers' models of the same three."""

    def __init__(self, folder: Path) -> None:
        self.judges: dict[str, GptOssForCausalLM] = {"b" * 8: tiny()}
        self.weights = [Weights("base", "b" * 8)]
        for name, rank, parameters in (
            ("one", 4, EXPERTS),
            ("two", 8, EXPERTS),
            ("router", 2, [*EXPERTS, "mlp.router.weight"]),
        ):
            sha256 = f"{name}-{rank}"
            self.judges[sha256] = make_adapter(folder / name, rank=rank, seed=rank, parameters=parameters)
            self.weights.append(Weights(f"{name}@v1", sha256, folder / name))
        self.batch = Batch(copy.deepcopy(tiny()), CELLS, 4, 8, kept_adapters=2)

    def fresh(self, cells: int = CELLS, most_running: int = 4, most_waiting: int = 8) -> Batch:
        self.batch.schedule = Schedule(Cells(cells), most_running, most_waiting)
        return self.batch

    @functools.cache  # noqa: B019  # as long as the module
    def judged(self, weights: Weights, prompt: tuple[int, ...]) -> list[int]:
        """What transformers' own `generate` goes on with, greedily."""
        ids = torch.tensor([prompt])
        more = {"do_sample": False, "eos_token_id": list(STOPS), "pad_token_id": 0, "max_new_tokens": LONGEST}
        with torch.inference_mode():
            whole = self.judges[weights.sha256].generate(ids, attention_mask=torch.ones_like(ids), **more)
        return whole[0, len(prompt) :].tolist()

    @functools.cache  # noqa: B019
    def alone(self, weights: Weights, prompt: tuple[int, ...], seed: int) -> list[int]:
        """What the engine says with a seed when it has nothing else to do."""
        asked = Asked(self, weights, prompt, LONGEST, seed=seed)
        batch = self.fresh()
        batch.schedule.add(asked.sequence)
        while batch.step():
            pass
        return asked.ids


class Asked:
    """A request, and what came back."""

    def __init__(self, scene: Scene, weights: Weights, prompt, tokens: int, seed: int | None = None, **more) -> None:
        self.said: list[Token | Exception | None] = []
        self.expected = lambda: (
            scene.alone(weights, tuple(prompt), seed) if seed else scene.judged(weights, tuple(prompt))
        )
        sampling = Sampling(tokens, temperature=1.0 if seed else 0.0, seed=seed, stops=STOPS, **more)
        self.sequence = Sequence(list(prompt), sampling, weights, self.said.append)

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.said if isinstance(token, Token)]


@dataclass(frozen=True)
class Line:
    """A line of a script: who asks for what and when, and when they leave."""

    arrives: int
    leaves: int | None
    weights: int
    text: int
    length: int
    tokens: int
    seed: int | None


LINES = st.builds(
    Line,
    arrives=st.integers(0, 12),
    leaves=st.none() | st.integers(0, 20),
    weights=st.integers(0, 3),
    text=st.integers(0, 2),
    length=st.sampled_from([1, 2, 15, 16, 17, 40, 41, 90]),
    tokens=st.integers(1, LONGEST),
    seed=st.none() | st.integers(1, 3),
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("adapters"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    script=st.lists(LINES, min_size=1, max_size=8),
    most_running=st.integers(1, 4),
    cells=st.sampled_from([110, 180, CELLS]),
    piece=st.sampled_from([3, 16, 512]),
)
def test_any_mix_says_what_each_would_say_alone(
    scene: Scene, script, most_running: int, cells: int, piece: int
) -> None:
    """Whatever arrives, shares beginnings, runs out of cells, leaves or takes turns with other adapters."""
    asked = [
        Asked(scene, scene.weights[line.weights], PROMPTS[line.text][: line.length], line.tokens, line.seed)
        for line in script
    ]
    expected = [one.expected() for one in asked]
    batch = scene.fresh(cells, most_running)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "PIECE_TOKENS", piece)
        for step in range(2000):
            for line, one in zip(script, asked, strict=True):
                if line.arrives == step:
                    batch.schedule.add(one.sequence)
                one.sequence.left |= line.leaves == step
            if not batch.step() and step > 20:
                break
    for line, one, whole in zip(script, asked, expected, strict=True):
        if line.leaves is None:
            assert one.ids == whole[: line.tokens] and one.said[-1] is None
        else:
            assert one.ids == whole[: len(one.ids)]
    holders = [cell for read in batch.schedule.cells.kept for cell in read.cells]
    assert not batch.schedule.running and not batch.schedule.waiting
    assert len(set(holders)) + len(batch.schedule.cells.free) == cells, "no cell is lost, and none is free twice"
