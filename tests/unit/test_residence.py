"""When the model is in memory and when it leaves: the decisions step by step, with an engine of numbers and a clock of the test's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.inference import residence
from services.inference.choice import Impossible
from services.inference.engine import Closed, Sampling, Token, Weights
from services.inference.residence import Away, Base, Residence
from shared.store import NotFound

RUN = "train-1"


class Numbers:
    """An engine whose tokens are 0, 1, 2, …"""

    name = "numbers"
    why = "It is the test's."
    stale: str | None = None

    def __init__(self) -> None:
        self.closed = 0

    async def generate(self, prompt, sampling: Sampling, weights) -> AsyncIterator[list[Token]]:
        for number in range(sampling.max_tokens):
            if self.closed:
                raise Closed
            yield [Token(number)]

    def close(self) -> None:
        self.closed += 1


class Scene:
    """A residence whose surroundings are attributes: `run`, `moment`, what `found` and `engines` there are."""

    def __init__(self) -> None:
        self.run: str | None = None
        self.moment = 0.0
        self.found, self.fails = True, 0
        self.engines: list[Numbers] = []
        self.residence = Residence("numbers", self.find, self.load, lambda: self.run, lambda: self.moment)

    def find(self) -> Base:
        if not self.found:
            raise NotFound("openai/gpt-oss-20b is not in the cache.")
        return Base(Path("/nowhere"), None, "0")

    def load(self, base: Base) -> Numbers:
        if self.fails:
            self.fails -= 1
            raise MemoryError
        self.engines.append(Numbers())
        return self.engines[-1]

    def after(self, seconds: float, run: str | None) -> str:
        """The state after `seconds` and a step, with `run` in need of the GPU."""
        self.moment, self.run = self.moment + seconds, run
        self.residence.step()
        return self.residence.state

    def ask(self, tokens: int = 3) -> Iterator[int]:
        return read(self.residence.generate([1], Sampling(tokens), Weights("base", "0")))


def read(answer: AsyncIterator[list[Token]]) -> Iterator[int]:
    """The ids of an answer, each asked for by the test when it wants it; closed when the test drops or closes it."""
    with asyncio.Runner() as runner:
        try:
            while tokens := runner.run(anext(answer, None)):
                yield from (token.id for token in tokens)
        finally:
            runner.run(answer.aclose())


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def ready(scene: Scene) -> Scene:
    assert scene.after(0, None) == "ready"
    return scene


def test_it_loads_at_the_start_and_answers(scene: Scene) -> None:
    assert scene.residence.told()["status"] == "loading"
    with pytest.raises(Away, match="being loaded") as away:
        next(scene.ask())
    assert away.value.code == "loading"
    assert scene.after(0, None) == "ready"
    assert scene.residence.told()["status"] == "ok"
    assert list(scene.ask()) == [0, 1, 2]


def test_a_run_makes_it_leave_at_once_when_nobody_is_answered(ready: Scene) -> None:
    assert ready.after(1, RUN) == "asleep"
    assert ready.engines[0].closed
    told = ready.residence.told()
    assert (told["status"], told["run"]) == ("asleep", RUN)
    with pytest.raises(Away, match=f"{RUN} has the GPU.*GGUF exports") as away:
        next(ready.ask())
    assert away.value.code == "asleep" and away.value.retry_after > 0


def test_it_wakes_when_the_run_has_ended_and_no_other_has_begun(ready: Scene) -> None:
    ready.after(1, RUN)
    assert ready.after(600, RUN) == "asleep"
    assert ready.after(1, None) == "asleep", "the next run of the queue may begin at once"
    assert ready.after(1, "train-2") == "asleep" and ready.residence.told()["run"] == "train-2"
    assert ready.after(residence.CALM_SECONDS, None) == "ready"
    assert len(ready.engines) == 2 and list(ready.ask()) == [0, 1, 2]
    assert "run" not in ready.residence.told()


def test_it_starts_asleep_where_a_run_has_the_gpu_already(scene: Scene) -> None:
    assert scene.after(0, RUN) == "asleep" and not scene.engines
    assert scene.residence.base().sha256 == "0", "GGUF exports are encoded for all the time"
    assert scene.after(residence.CALM_SECONDS, None) == "ready"


def test_an_answer_in_progress_may_end(ready: Scene) -> None:
    answer = ready.ask()
    next(answer)
    assert ready.after(1, RUN) == "leaving"
    assert ready.residence.told()["status"] == "leaving" and not ready.engines[0].closed
    with pytest.raises(Away, match=RUN):
        next(ready.ask())
    assert list(answer) == [1, 2]
    assert ready.after(1, RUN) == "asleep"


def test_an_answer_that_takes_too_long_is_ended_and_says_why(ready: Scene) -> None:
    answer = ready.ask(1000)
    next(answer)
    ready.after(1, RUN)
    assert ready.after(residence.PATIENCE_SECONDS - 1, RUN) == "leaving" and next(answer) == 1
    assert ready.after(1, RUN) == "leaving", "what the answer holds is not given back yet"
    with pytest.raises(Away, match=f"{RUN} has the GPU"):
        next(answer)
    assert ready.after(0.1, RUN) == "asleep"


def overdue(ready: Scene) -> Iterator[int]:
    """An answer that has begun, is not read on, and for whose end the model can wait no longer."""
    answer = ready.ask(1000)
    next(answer)
    ready.after(1, RUN)
    assert ready.after(residence.PATIENCE_SECONDS, RUN) == "leaving"
    return answer


def test_an_answer_that_nobody_reads_holds_it_up_for_a_while_only(ready: Scene) -> None:
    answer = overdue(ready)
    assert ready.after(residence.LAST_SECONDS, RUN) == "asleep"
    with pytest.raises(Away):
        next(answer)


def test_an_answer_that_is_dropped_holds_nothing_up(ready: Scene) -> None:
    answer = ready.ask()
    next(answer)
    answer.close()
    assert ready.after(1, RUN) == "asleep"


def test_it_stays_if_the_run_ends_before_it_has_left(ready: Scene) -> None:
    answer = ready.ask()
    next(answer)
    ready.after(1, RUN)
    assert ready.after(1, None) == "ready" and not ready.engines[0].closed
    assert list(answer) == [1, 2] and len(ready.engines) == 1


def test_a_run_that_ends_after_the_model_was_closed_lets_it_come_back(ready: Scene) -> None:
    answer = overdue(ready)  # held on to: one that is dropped has ended
    assert ready.after(residence.LAST_SECONDS, None) == "asleep"
    assert ready.after(residence.CALM_SECONDS, None) == "ready" and len(ready.engines) == 2
    answer.close()


def test_a_base_that_is_not_fetched_is_waited_for(scene: Scene) -> None:
    scene.found = False
    assert scene.after(0, None) == "loading"
    told = scene.residence.told()
    assert told["status"] == "loading" and "Waiting for the base model: openai/gpt-oss-20b" in told["detail"]
    with pytest.raises(Away, match="openai/gpt-oss-20b"):
        scene.residence.base()
    scene.found = True
    assert scene.after(residence.AGAIN_SECONDS, None) == "ready"


def test_a_model_that_cannot_be_loaded_is_tried_again(scene: Scene) -> None:
    scene.fails = 1
    assert scene.after(0, None) == "loading"
    assert "MemoryError" in scene.residence.told()["detail"]
    assert scene.after(1, None) == "loading" and not scene.engines
    assert scene.after(residence.AGAIN_SECONDS, None) == "ready"


def test_the_thread_leaves_as_soon_as_the_last_answer_has_ended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import wait_for

    monkeypatch.setattr(residence, "LOOK_SECONDS", 0.05)
    scene.residence.start()
    wait_for(lambda: scene.residence.state == "ready", 5, "loaded")
    answer = scene.ask()
    next(answer)
    scene.run = RUN
    wait_for(lambda: scene.residence.state == "leaving", 5, "the run is seen")
    monkeypatch.setattr(residence, "LOOK_SECONDS", 60)
    list(answer)
    wait_for(lambda: scene.residence.state == "asleep", 5, "asleep")


def test_a_stale_engine_is_loaded_again_when_nobody_is_being_answered(scene: Scene) -> None:
    scene.after(0, None)
    answer = scene.ask(1000)
    next(answer)
    scene.engines[0].stale = "Its processes have ended."
    assert scene.after(1, None) == "ready" and len(scene.engines) == 1, "an answer may end"
    answer.close()
    assert scene.after(1, None) == "ready"
    assert len(scene.engines) == 2 and scene.engines[0].closed == 1


def test_a_stale_engine_does_not_wait_for_answers_for_ever(scene: Scene) -> None:
    scene.after(0, None)
    answer = scene.ask(1000)
    next(answer)
    scene.engines[0].stale = "Its processes have ended."
    scene.after(residence.PATIENCE_SECONDS, None)
    assert len(scene.engines) == 2
    with pytest.raises(Away):
        list(answer)


def test_health_tells_how_far_the_loading_is_and_then_which_engine_answers_and_why(scene: Scene) -> None:
    scene.residence.say("the model is being loaded: its weights are being read")
    assert scene.residence.told()["detail"] == "the model is being loaded: its weights are being read"
    scene.after(0, None)
    assert scene.residence.told()["engine_why"] == "It is the test's." and scene.residence.name == "numbers"


def test_an_engine_that_cannot_be_here_is_said_with_what_to_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Base) -> Numbers:
        raise Impossible("TANDEM_ENGINE is vllm, but there is no CUDA GPU.")

    monkeypatch.setattr(scene.residence, "load", refuse)
    assert scene.after(0, None) == "loading"
    assert scene.residence.told()["detail"] == "TANDEM_ENGINE is vllm, but there is no CUDA GPU."
