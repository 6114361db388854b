"""What each engine behind the seam has to do, whatever it is made of: greedy answers are those of transformers and PEFT,
and the rest of `services.inference.engine` holds. Each runs where it can; a reason is given where it cannot.

    python -m pytest tests/integration/test_engines.py -k vllm

On a GPU the base has gpt-oss-20b's widths in MXFP4 and random weights; TANDEM_TEST_BASE names a folder with another one.
"""

import asyncio
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from services.inference import metrics
from services.inference.constraint import Constraint
from services.inference.engine import Busy, Closed, Sampling, Token, Unavailable, Unfit, Weights
from services.inference.grammar import answer_grammar
from shared import hub
from shared.harmony import Encoder, Piece
from shared.settings import Settings
from tests import checkpoints
from tests.engines import BASE, GPU, PROMPTS, TOKENS, Asked, cut_short, unsloth, vllm
from tests.judge import Judge

RUNNING, WAITING = 4, 2
NEAR = 0.35 if GPU else 0.02  # how far below the judge's likeliest token one may be: bf16 and MXFP4 round, fp32 hardly
SCHEMA = {
    "type": "object",
    "properties": {"open": {"enum": ["yes", "no"]}, "hours": {"enum": [1, 2, 3]}},
    "required": ["open", "hours"],
    "additionalProperties": False,
}
STOPS = (200002, 200012, 199999)


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("TANDEM_TEST_BASE"):
        return Path(given)
    tiny = request.getfixturevalue("harmony_tokenizer_dir")
    return checkpoints.mxfp4(tmp_path_factory.mktemp("wide"), tiny) if GPU else tiny


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return hub.encoder(base)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, base: Path) -> list[Weights]:
    """Random ones: on attention and experts with two ranks, and on attention alone."""
    kinds = [{"rank": 8, "seed": 1}, {"rank": 16, "seed": 2}, {"rank": 8, "seed": 3, "experts": False}]
    folder = tmp_path_factory.mktemp("adapters")
    made = [checkpoints.adapter(folder / str(n), base, strength=0.7, **kind) for n, kind in enumerate(kinds)]
    return [Weights(f"adapter@v{n}", str(n) * 64, path) for n, path in enumerate(made)]


@pytest.fixture(scope="module")
def judge(base: Path) -> Judge:
    return Judge(base)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    limits = {"sequences": RUNNING, "waiting_requests": WAITING, "context_tokens": 1024, "cached_tokens": 8192}
    folder = tmp_path_factory.mktemp("data")
    return Settings(data=folder, hf_home=folder, redis_url="redis://none/0", kept_adapters=3, **limits)


@pytest.fixture(scope="module", params=["unsloth", "vllm"])
def asked(request: pytest.FixtureRequest, base: Path, settings: Settings) -> Iterator[Asked]:
    engine = {"unsloth": unsloth, "vllm": vllm}[request.param](base, settings)
    yield Asked(engine)
    engine.close()


def text(encoder: Encoder, *parts: str) -> list[int]:
    kinds = [Piece(part, "assistant", None, "special" if part.startswith("<|") else "header", None) for part in parts]
    return encoder.encode(kinds)


def ids(answer: list[Token]) -> list[int]:
    return [token.id for token in answer]


def test_many_at_once_are_each_answered_as_transformers_would(asked: Asked, judge: Judge) -> None:
    answers = asked.ask_all([(prompt, BASE) for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert len(answer) == TOKENS
        assert judge.regret(prompt, ids(answer)) < NEAR


def test_base_and_adapters_in_one_batch_are_each_answered_as_peft_would(
    asked: Asked, judge: Judge, adapters: list[Weights]
) -> None:
    if asked.engine.name == "vllm" and not GPU:
        pytest.skip("vLLM applies adapters to experts with Triton, which needs a GPU")
    everything = [(prompt, weights) for prompt in PROMPTS for weights in (BASE, *adapters)]
    before = asked.ask_all(everything[: RUNNING + WAITING])
    after = asked.ask_all(everything[RUNNING + WAITING :])
    for (prompt, weights), answer in zip(everything, before + after, strict=True):
        with judge.wearing(weights.adapter):
            assert judge.regret(prompt, ids(answer)) < NEAR, weights.name
    plain = ids(before[0])
    for weights in adapters:
        with judge.wearing(weights.adapter):
            assert judge.regret(PROMPTS[0], plain) > NEAR, f"{weights.name} changes the answer"


def test_a_stop_ends_the_answer_and_is_the_last_of_it(asked: Asked) -> None:
    whole = ids(asked.ask())
    stop = whole[TOKENS // 2]
    answer = ids(asked.ask(stops=(stop,)))
    assert answer == whole[: whole.index(stop) + 1]


def test_log_probabilities_are_the_models_own_before_temperature_and_bias(asked: Asked, judge: Judge) -> None:
    answer = asked.ask(logprobs=3, temperature=2.0, seed=1, logit_bias={5: 100.0}, max_tokens=4)
    assert ids(answer) == [5] * 4, "the bias decides"
    told = judge.logprobs(PROMPTS[0], ids(answer))
    for token, row in zip(answer, told, strict=True):
        assert len(token.top) == 3 and token.logprob == pytest.approx(float(row[5]), abs=NEAR)
        best = [logprob for _, logprob in token.top]
        assert best == sorted(best, reverse=True)
        assert best == pytest.approx(row.topk(3).values.tolist(), abs=NEAR)
    assert all(token.logprob is None and token.top == () for token in asked.ask(max_tokens=2))
    assert [token.top for token in asked.ask(max_tokens=2, logprobs=0)] == [(), ()]


def test_a_seed_draws_the_same_again_and_another_one_something_else(asked: Asked) -> None:
    one, again, other = (ids(asked.ask(temperature=1.5, seed=seed, max_tokens=40)) for seed in (1, 1, 2))
    assert one == again != other


def test_what_is_drawn_keeps_to_top_k_top_p_and_min_p(asked: Asked) -> None:
    likeliest = ids(asked.ask())
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert ids(asked.ask(temperature=1.5, seed=3, **narrow)) == likeliest, narrow


def test_what_two_prompts_have_in_common_is_read_once(asked: Asked) -> None:
    common = list(range(5000, 5300))
    first = asked.ask([*common, 7])
    hits = metrics.PREFIX_HITS._value.get()
    assert len(asked.ask([*common, 8])) == len(first) == TOKENS
    assert metrics.PREFIX_HITS._value.get() - hits >= 256, "whole blocks of up to 128 tokens"


def test_as_many_as_may_wait_and_one_more_is_told_so_and_who_leaves_makes_room(asked: Asked) -> None:
    async def crowd() -> int:
        sampling = Sampling(900, temperature=0)
        answers = [asked.engine.generate(PROMPTS[0], sampling, BASE) for _ in range(RUNNING + WAITING)]
        begun = [asyncio.ensure_future(anext(answer)) for answer in answers]
        await asyncio.wait(begun[:RUNNING], timeout=60)
        with pytest.raises(Busy):
            await asked.read(PROMPTS[1], BASE)
        for first, answer in zip(begun, answers, strict=True):
            first.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await first
            await answer.aclose()
        for _ in range(100):
            with suppress(Busy):
                return len(await asked.read(PROMPTS[1], BASE))
            await asyncio.sleep(0.1)  # the engine notices between two steps
        pytest.fail("no place was free after 10 s")

    assert asked.run(crowd()) == TOKENS


@pytest.mark.parametrize(
    "begun", [("<|channel|>", "final", "<|message|>"), ("<|channel|>", "final", "<|message|>", '{"open')]
)
def test_an_answer_by_a_schema_follows_it_also_from_what_has_begun(
    asked: Asked, encoder: Encoder, begun: tuple[str, ...]
) -> None:
    start = text(encoder, *begun)
    grammar = answer_grammar(SCHEMA)
    more = {"grammar": grammar, "begun": len(start), "stops": STOPS, "max_tokens": 60}
    answers = [ids(asked.ask(PROMPTS[0] + start, temperature=1.0, seed=seed, **more)) for seed in range(3)]
    for answer in answers:
        assert answer[-1] == 200002
        said = json.loads(encoder.decode(start[3:] + answer[:-1]))
        assert said["open"] in ("yes", "no") and said["hours"] in (1, 2, 3) and len(said) == 2


@pytest.mark.parametrize("begun", [(), ("<|channel|>", "analysis", "<|message|>")])
def test_an_answer_by_a_schema_may_think_before(asked: Asked, encoder: Encoder, begun: tuple[str, ...]) -> None:
    start, grammar = text(encoder, *begun), answer_grammar(SCHEMA)
    against = {5: 30.0}  # what it would say if it might say anything
    more = {"grammar": grammar, "begun": len(start), "stops": STOPS, "max_tokens": 30, "logit_bias": against}
    answer = ids(asked.ask(PROMPTS[0] + start, **more))
    if begun or not GPU:  # random weights, which a GPU has, may go to the answer by themselves
        assert 5 in answer, "thinking is free"
    constraint = Constraint(encoder, grammar)
    for token in start + answer:
        constraint.advance(token)  # raises where the grammar does not allow it


def test_a_tool_call_that_is_demanded_comes_and_ends_the_answer(asked: Asked, encoder: Encoder) -> None:
    tool = {"name": "opening_hours", "strict": True, "parameters": SCHEMA}
    start = text(encoder, "<|channel|>", "commentary to=functions.opening_hours", "<|message|>")
    more = {"grammar": answer_grammar(None, [tool], must_call=True), "begun": len(start), "stops": STOPS}
    answer = ids(asked.ask(PROMPTS[0] + start, max_tokens=60, **more))
    assert answer[-1] == 200012 and set(json.loads(encoder.decode(answer[:-1]))) == {"open", "hours"}


def test_an_adapter_with_parts_that_have_no_place_is_refused_by_name(
    asked: Asked, adapters: list[Weights], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "strange"
    folder.mkdir()
    source = Path(str(adapters[2].adapter))
    config = json.loads((source / "adapter_config.json").read_text())
    config["target_modules"] = [name.replace("q_proj", "x_proj") for name in config["target_modules"]]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(source / "adapter_model.safetensors")
    renamed = {name.replace("q_proj", "x_proj"): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    with pytest.raises(Unfit, match="strange@v1"):
        asked.ask(weights=Weights("strange@v1", "f" * 64, folder))
    assert len(asked.ask()) == TOKENS, "the others are answered on"


def test_an_adapter_of_a_rank_beyond_vllms_room_has_the_engine_loaded_again(
    asked: Asked, base: Path, tmp_path: Path
) -> None:
    if asked.engine.name != "vllm":
        pytest.skip("only vLLM makes room for a rank when it starts")
    high = Weights("high@v1", "e" * 64, checkpoints.adapter(tmp_path, base, rank=64))
    with pytest.raises(Unavailable, match=r"high@v1 is of a higher rank .* makes room for rank 64"):
        asked.ask(weights=high)
    assert asked.engine.stale == "An adapter of rank 64 is to answer, and there was room for rank 16."
    assert len(asked.ask()) == TOKENS, "the others are answered until then"


def test_closing_ends_what_is_being_answered_and_nothing_begins_any_more(asked: Asked) -> None:
    assert 0 < asked.run(cut_short(asked.engine, PROMPTS[0])) < 900
    with pytest.raises(Closed):
        asked.ask()


def test_vllm_whose_process_is_killed_says_so_and_is_to_be_loaded_again(base: Path, settings: Settings) -> None:
    asked = Asked(vllm(base, settings))
    try:
        assert asked.engine.stale is None and len(asked.ask()) == TOKENS
        for process in multiprocessing.active_children():
            process.kill()
        with pytest.raises(Unavailable, match="The engine has died"):
            asked.ask(max_tokens=900)
        assert asked.engine.stale == "vLLM's processes have ended by themselves."
    finally:
        asked.engine.close()
