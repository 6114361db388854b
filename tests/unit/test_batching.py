"""Many answers in one batch are what each would be alone: token for token transformers' own, and the same for a seed."""

import copy
import functools
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import GptOssForCausalLM

from services.inference import metrics
from services.inference.engine import Busy, Sampling, Token, Unfit, Weights
from services.inference.unsloth import schedule as scheduling
from services.inference.unsloth.batch import Batch
from services.inference.unsloth.cells import Cells
from services.inference.unsloth.draw import draw
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


@settings(max_examples=40, deadline=None, derandomize=True)
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


def answered(scene: Scene, *lines: tuple[int, list[int], int]) -> list[Asked]:
    """Requests as (weights, prompt, tokens) that arrive together, once all are answered."""
    asked = [Asked(scene, scene.weights[weights], prompt, tokens) for weights, prompt, tokens in lines]
    for one in asked:
        scene.batch.schedule.add(one.sequence)
    while scene.batch.step():
        pass
    return asked


def test_they_are_answered_in_order_and_too_many_are_told_to_come_back(scene: Scene) -> None:
    batch, ends = scene.fresh(most_running=1, most_waiting=2), []
    for name in ("first", "second", "third"):
        said = lambda item, name=name: ends.append(name) if item is None else None  # noqa: E731
        batch.schedule.add(Sequence(PROMPTS[0][:9], Sampling(3, temperature=0), scene.weights[0], said))
    with pytest.raises(Busy, match="2 requests are waiting"):
        batch.schedule.add(Sequence([1], Sampling(3), scene.weights[0], lambda item: None))
    while batch.step():
        pass
    assert ends == ["first", "second", "third"]


def test_a_long_prompt_is_read_in_pieces_between_which_others_speak(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr(scheduling, "PIECE_TOKENS", 10)
    batch = scene.fresh()
    short, long = Asked(scene, scene.weights[0], PROMPTS[0][:2], 12), Asked(scene, scene.weights[0], PROMPTS[1], 1)
    batch.schedule.add(short.sequence)
    batch.step()
    batch.schedule.add(long.sequence)
    for step in range(1, 9):
        batch.step()
        assert len(short.ids) == 1 + step and not long.ids


def test_a_beginning_that_was_read_is_not_read_again(scene: Scene) -> None:
    scene.fresh()
    text, before = PROMPTS[0], metrics.PREFIX_HITS._value.get()
    first, again = answered(scene, (0, text, 4))[0], answered(scene, (0, text, 4), (0, text[:50] + PROMPTS[1][:9], 4))
    assert metrics.PREFIX_HITS._value.get() - before == len(text) - 1 + 50
    assert again[0].ids == first.ids and again[1].ids == again[1].expected()[:4]
    other = answered(scene, (1, text, 4))[0]
    assert metrics.PREFIX_HITS._value.get() - before == len(text) - 1 + 50, "other weights have read nothing"
    assert other.ids == other.expected()[:4] != first.ids


def test_an_adapter_in_use_stays_and_the_one_not_used_for_longest_goes(scene: Scene, monkeypatch) -> None:
    scene.fresh()
    answered(scene, (3, [1], 1))  # the one that clashes with all others
    monkeypatch.setattr(scene.batch.adapters, "most", 1)
    asked = answered(scene, (1, PROMPTS[0][:20], 12), (2, PROMPTS[0][:20], 12), (1, PROMPTS[0][:20], 3))
    assert all(one.ids == one.expected()[: len(one.ids)] for one in asked)
    assert list(scene.batch.adapters.loaded) == [scene.weights[1].sha256]
    monkeypatch.setattr(scene.batch.adapters, "most", 2)
    answered(scene, (2, [1], 1), (1, [1], 1), (3, [1], 1))
    assert list(scene.batch.adapters.loaded) == [scene.weights[3].sha256], "PEFT takes one set of parameters at a time"


@pytest.mark.parametrize("lost", ["all", "one"])
def test_an_adapter_that_would_be_ignored_is_refused_and_the_others_go_on(
    scene: Scene, tmp_path: Path, lost: str
) -> None:
    scene.fresh()
    shutil.copytree(scene.weights[1].adapter, tmp_path / lost)
    file = tmp_path / lost / "adapter_model.safetensors"
    tensors = load_file(file)
    moved = list(tensors) if lost == "all" else [next(iter(tensors))]
    save_file({(f"elsewhere.{name}" if name in moved else name): t for name, t in tensors.items()}, file)
    strange = Asked(scene, Weights("strange@v1", f"strange-{lost}", tmp_path / lost), [1, 2, 3], 5)
    scene.batch.schedule.add(strange.sequence)
    good = answered(scene, (1, [1, 2, 3], 5))[0]
    assert good.ids == good.expected()[:5]
    (refusal,) = strange.said
    assert isinstance(refusal, Unfit)
    assert f"strange@v1 does not fit the base model that is served: {len(moved)} of its {len(tensors)}" in str(refusal)


def test_bias_and_logprobs_are_of_the_tokens_drawn(scene: Scene) -> None:
    scene.fresh()
    weights, prompt = scene.weights[0], PROMPTS[0][:20]
    likeliest = scene.judged(weights, tuple(prompt))[0]
    told = Asked(scene, weights, prompt, 1, logprobs=3)
    banned = Asked(scene, weights, prompt, 1, logit_bias={likeliest: -100.0}, logprobs=0)
    for one in (told, banned):
        scene.batch.schedule.add(one.sequence)
    while scene.batch.step():
        pass
    with torch.inference_mode():
        logprobs = tiny()(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    first, second = told.said[0], banned.said[0]
    assert first.id == likeliest and [id_ for id_, _ in first.top] == logprobs.topk(3).indices.tolist()
    assert first.logprob == pytest.approx(float(logprobs[likeliest]), abs=1e-4)
    assert second.id == int(logprobs.topk(2).indices[1]) and second.top == ()
    assert second.logprob == pytest.approx(float(logprobs[second.id]), abs=1e-4), "what the model said, before the bias"


def test_what_is_drawn_is_drawn_as_often_as_it_is_likely() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0, -9.0])
    for more, kept in (({}, 5), ({"top_k": 2}, 2), ({"top_p": 0.8}, 2), ({"min_p": 0.1}, 3)):
        drawn = [draw(logits[None], [(Sampling(1, **more), Random(seed))])[0].id for seed in range(1500)]
        expected = logits.where(torch.arange(5) < kept, -torch.inf).softmax(-1)
        found = torch.tensor(drawn).bincount(minlength=5) / len(drawn)
        assert torch.allclose(found, expected, atol=0.04), more
