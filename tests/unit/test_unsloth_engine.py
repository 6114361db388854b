"""The server over the engine, with a tiny model in it: full, left, late, told to stop, and given new adapters meanwhile."""

import asyncio
import copy
import json
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services.inference.door import Server
from services.inference.engine import Closed, Sampling, Weights
from services.inference.unsloth import engine as module
from services.inference.unsloth.engine import UnslothEngine
from shared import registry
from shared.harmony import Encoder
from shared.settings import Settings
from shared.store import Store
from tests.conftest import BASE, free_port, wait_for
from tests.engines import cut_short
from tests.unit.exposition import inference, parse
from tests.unit.test_registry import card
from tests.unit.tiny_adapter import make_adapter
from tests.unit.tiny_gpt_oss import tiny

RUNNING, WAITING = 2, 2


class Live:
    """A server on a port of its own, in a thread."""

    def __init__(self, settings: Settings, encoder: Encoder, engine: UnslothEngine) -> None:
        self.engine, port = engine, free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.server = Server(inference(settings, encoder, engine), "127.0.0.1", port, settings.drain_seconds)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        wait_for(lambda: self.server.started, 10, "the server listens")

    def ask(self, tokens: int = 900, **more) -> httpx.Response:
        body = {"model": BASE, "prompt": [1, 2, 3], "max_tokens": tokens, "temperature": 0, **more}
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=60)

    def stream(self, tokens: int = 900, **more):
        body = {"model": BASE, "prompt": [1, 2, 3], "max_tokens": tokens, "temperature": 0, "stream": True, **more}
        return httpx.stream("POST", f"{self.url}/v1/completions", json=body, timeout=60)

    @property
    def running(self) -> int:
        return len(self.engine.batch.schedule.running)

    @property
    def waiting(self) -> int:
        return len(self.engine.batch.schedule.waiting)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)


@pytest.fixture
def live(settings: Settings, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setattr(module, "load", lambda folder, context_tokens: copy.deepcopy(tiny()))
    limits = {"sequences": RUNNING, "waiting_requests": WAITING, "context_tokens": 1024, "cached_tokens": 4096}
    settings = settings.model_copy(update={**limits, "drain_seconds": 20.0})
    engine = UnslothEngine(Path("/nowhere"), settings)
    server = Live(settings, encoder, engine)
    yield server
    server.stop()
    engine.close()


def test_health_answers_under_full_load_and_one_more_is_told_to_come_back(live: Live) -> None:
    with ThreadPoolExecutor(RUNNING + WAITING) as pool:
        answers = [pool.submit(live.ask, 900, deadline=3) for _ in range(RUNNING + WAITING)]
        wait_for(lambda: (live.running, live.waiting) == (RUNNING, WAITING), 10, "the engine is full")
        refused = live.ask(3)
        metrics = parse(httpx.get(f"{live.url}/metrics").text)
        took = []
        for _ in range(11):
            began = time.monotonic()
            assert httpx.get(f"{live.url}/health", timeout=5).status_code == 200
            took.append(time.monotonic() - began)
        assert {answer.result().status_code for answer in answers} <= {200, 504}
    assert sorted(took)[5] < 0.25, "five times what a quiet machine must do"
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "busy"
    assert metrics["tandem_requests_running"][()] >= metrics["tandem_requests_waiting"][()] > 0
    assert 0 < metrics["tandem_kv_cache_usage_perc"][()] < 1
    assert live.ask(3).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(live: Live, stream: bool) -> None:
    if stream:
        with live.stream() as answer:
            next(answer.iter_lines())
            assert live.running == 1
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{live.url}/v1/completions", json={"model": BASE, "prompt": [1], "max_tokens": 900}, timeout=0.3
            )
    left = time.monotonic()
    wait_for(lambda: live.running == 0, 10, "the place is free")
    assert time.monotonic() - left < 0.5, "five times what a quiet machine must do"


def test_an_answer_whose_time_is_up_ends_and_says_so(live: Live) -> None:
    late = live.ask(deadline=0.3)
    assert late.status_code == 504 and "after 0.3 s" in late.json()["error"]["message"]
    with live.stream(deadline=0.3) as answer:
        *_, error, done = [line[6:] for line in answer.iter_lines() if line]
    assert json.loads(error)["error"]["code"] == "deadline_exceeded" and done == "[DONE]"
    with ThreadPoolExecutor(RUNNING) as pool:
        for _ in range(RUNNING):
            pool.submit(live.ask, 300)
        wait_for(lambda: live.running == RUNNING, 10, "all places are taken")
        assert live.ask(3, deadline=0.05).status_code == 504, "waiting counts"
        assert live.ask(3, deadline=0).status_code == 400


def test_told_to_stop_it_ends_what_it_has_begun_and_begins_nothing_new(live: Live) -> None:
    with live.stream(400, stream_options={"include_usage": True}) as answer:
        lines = (line[6:] for line in answer.iter_lines() if line)
        next(lines)
        live.server.handle_exit(signal.SIGTERM, None)
        refused = live.ask(3)
        *_, usage, done = lines
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "stopping"
    assert json.loads(usage)["usage"]["completion_tokens"] == 400 and done == "[DONE]"
    live.thread.join(5)
    assert not live.thread.is_alive()


def test_an_adapter_is_usable_when_it_appears_and_an_alias_counts_from_the_next_request(
    live: Live, store: Store, tmp_path: Path
) -> None:
    for seed in (1, 2):
        make_adapter(tmp_path / str(seed), seed=seed)
    with live.stream(300, stream_options={"include_usage": True}) as answer:
        lines = (line[6:] for line in answer.iter_lines() if line)
        next(lines)
        said = [live.ask(8).json()["choices"][0]["text"]]
        for seed in (1, 2):
            with store.staging(store.adapters()) as staged:
                shutil.copytree(tmp_path / str(seed), staged, dirs_exist_ok=True)
                made = registry.publish_adapter(store, staged, {**card("house"), "sha256": str(seed) * 64})
            registry.point_alias(store, "production", made.reference)
            answered = live.ask(8, model="production")
            assert answered.headers["x-tandem-model"] == made.reference
            said.append(answered.json()["choices"][0]["text"])
            assert live.ask(8, model=made.reference).json()["choices"][0]["text"] == said[-1]
        *_, usage, done = lines
    assert len(set(said)) == 3, "base and adapters answer differently"
    assert json.loads(usage)["usage"]["completion_tokens"] == 300 and done == "[DONE]"


def test_a_strange_adapter_is_a_400_that_says_why(live: Live, store: Store, tmp_path: Path) -> None:
    make_adapter(tmp_path / "made", parameters=[], modules=["q_proj"])
    config = tmp_path / "made" / "adapter_config.json"
    config.write_text(config.read_text().replace("q_proj", "x_proj"))
    with store.staging(store.adapters()) as staged:
        shutil.copytree(tmp_path / "made", staged, dirs_exist_ok=True)
        registry.publish_adapter(store, staged, card("strange"))
    for stream in (False, True):
        answer = live.ask(3, model="strange@v1", stream=stream)
        assert answer.status_code == 400
        assert "strange@v1 does not fit the base model" in answer.json()["error"]["message"]


def test_a_closed_engine_ends_its_answers_and_lets_the_model_go(live: Live) -> None:
    model = weakref.ref(live.engine.batch.adapters.model)
    assert 0 < asyncio.run(cut_short(live.engine, [1, 2])) < 900
    assert model() is None
    with pytest.raises(Closed):
        asyncio.run(anext(live.engine.generate([1], Sampling(1), Weights("base", "b" * 64))))
