"""The OpenAI API over the tiny model, asked with OpenAI's own client."""

import threading
import time

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from shared import registry
from shared.harmony import GENERATION_STOPS, Encoder, Parser
from shared.harmony.encoder import START
from tests.conftest import BASE, wait_for
from tests.integration.conftest import Served, answers

QUESTION = [{"role": "user", "content": "When are you open?"}]
MODELS = [BASE, "house@v1", "house-v1-F16.gguf"]


@pytest.fixture(scope="module")
def client(served: Served) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)


def greedy(client: OpenAI, model: str, **more: object):
    return client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=60, **more)


def test_models_are_base_adapter_and_export_with_their_parents(client: OpenAI) -> None:
    found = {model.id: model.parent for model in client.models.list()}
    assert found == {BASE: None, "house@v1": BASE, "house-v1-F16.gguf": "house@v1"}


def test_the_adapter_changes_the_answer_and_the_gguf_agrees_with_it(client: OpenAI) -> None:
    base, adapter, gguf = (greedy(client, model).choices[0].message for model in MODELS)
    assert base.content != adapter.content
    assert (adapter.content, adapter.reasoning) == (gguf.content, gguf.reasoning)


def test_the_base_is_the_base_again_after_an_adapter_answered(client: OpenAI) -> None:
    before = greedy(client, BASE).choices[0].message.content
    greedy(client, "house@v1")
    assert greedy(client, BASE).choices[0].message.content == before


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_is_the_answer_in_pieces(client: OpenAI, model: str) -> None:
    whole = greedy(client, model)
    text, reasoning, usage, reason = "", "", None, None
    for chunk in greedy(client, model, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            reason = choice.finish_reason or reason
    assert text == whole.choices[0].message.content
    assert reasoning == (whole.choices[0].message.reasoning_content or "")
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert reason == whole.choices[0].finish_reason


def test_both_names_of_the_reasoning_are_filled(client: OpenAI) -> None:
    message = greedy(client, BASE).choices[0].message
    assert message.reasoning and message.reasoning == message.reasoning_content


def test_the_effort_reaches_the_prompt_under_each_of_its_names(client: OpenAI) -> None:
    counts = {
        greedy(client, BASE, reasoning_effort="high").usage.prompt_tokens,
        greedy(client, BASE, extra_body={"chat_template_kwargs": {"reasoning_effort": "high"}}).usage.prompt_tokens,
        greedy(client, BASE, extra_body={"reasoning": {"effort": "high"}}).usage.prompt_tokens,
    }
    assert len(counts) == 1
    with pytest.raises(BadRequestError, match="low, medium or high"):
        greedy(client, BASE, extra_body={"chat_template_kwargs": {"reasoning_effort": "extreme"}})


def test_what_answered_is_named_with_its_hash(client: OpenAI, served: Served) -> None:
    raw = client.chat.completions.with_raw_response.create(model="house@v1", messages=QUESTION, max_tokens=2)
    assert raw.headers["x-tandem-model"] == "house@v1"
    assert raw.headers["x-tandem-sha256"] == registry.adapter_card(served.store, "house@v1").sha256


def test_an_alias_counts_from_the_next_request(client: OpenAI, served: Served) -> None:
    registry.point_alias(served.store, "production", "house@v1")
    assert (
        greedy(client, "production").choices[0].message.content == greedy(client, "house@v1").choices[0].message.content
    )
    registry.point_alias(served.store, "production", "house-v1-F16.gguf")
    raw = client.chat.completions.with_raw_response.create(model="production", messages=QUESTION, max_tokens=2)
    assert raw.headers["x-tandem-model"] == "house-v1-F16.gguf"
    registry.remove_alias(served.store, "production")


def test_a_seed_repeats_a_sampled_answer(client: OpenAI) -> None:
    one, two = (client.chat.completions.create(model=BASE, messages=QUESTION, seed=7, max_tokens=30) for _ in range(2))
    assert one.choices[0].message == two.choices[0].message


def test_max_tokens_is_kept_and_said(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=BASE, messages=QUESTION, temperature=0, max_tokens=3)
    assert answer.usage.completion_tokens == 3 and answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("model", MODELS)
def test_each_token_id_comes_in_exactly_one_chunk(client: OpenAI, encoder: Encoder, model: str) -> None:
    whole = greedy(client, model, extra_body={"return_token_ids": True})
    ids = whole.choices[0].token_ids
    first, *rest = list(greedy(client, model, stream=True, extra_body={"return_token_ids": True}))
    assert first.prompt_token_ids == whole.prompt_token_ids
    assert not any(hasattr(chunk, "prompt_token_ids") for chunk in rest)
    assert [id_ for chunk in (first, *rest) for choice in chunk.choices for id_ in choice.token_ids] == ids
    assert len(ids) == whole.usage.completion_tokens and ids[-1] in GENERATION_STOPS
    assert encoder.decode(whole.prompt_token_ids).endswith("When are you open?<|end|><|start|>assistant")
    parser = Parser(encoder)
    for id_ in ids:
        parser.feed(id_)
    assert parser.message()["content"] == whole.choices[0].message.content
    assert not hasattr(greedy(client, model).choices[0], "token_ids")


@pytest.mark.parametrize("model", MODELS)
def test_ids_that_end_at_the_limit_are_all_told(client: OpenAI, model: str) -> None:
    """A hot, odd answer cut short: text may be held back then, ids may not."""
    more = {"stream_options": {"include_usage": True}, "extra_body": {"return_token_ids": True}}
    asked = {"model": model, "messages": QUESTION, "temperature": 1.5, "seed": 3, "max_tokens": 7, "stream": True}
    *chunks, last = list(client.chat.completions.create(**asked, **more))
    ids = [id_ for chunk in chunks for choice in chunk.choices for id_ in choice.token_ids]
    assert len(ids) == last.usage.completion_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_that_was_cut_goes_on_where_it_ended(client: OpenAI, encoder: Encoder, model: str) -> None:
    """Once cut inside the thinking, once inside the answer: what is generated again is the rest, and nothing twice."""
    whole = greedy(client, model).choices[0].message
    cut = whole.content[: whole.content.index(" ", 10)]  # where a token ends
    for thinking, content in ((whole.reasoning.rpartition(" ")[0], ""), (whole.reasoning, cut)):
        begun = {"role": "assistant", "reasoning": thinking, "content": content}
        asked = {"model": model, "messages": [*QUESTION, begun], "temperature": 0, "max_tokens": 60}
        asked["extra_body"] = {"continue_final_message": True, "return_token_ids": True}
        answer = client.chat.completions.create(**asked)
        text = encoder.decode(answer.prompt_token_ids)
        assert text.endswith(content or thinking) and text.count("<|start|>assistant") == (2 if content else 1)
        said = answer.choices[0].message
        streamed = [c.delta for chunk in client.chat.completions.create(**asked, stream=True) for c in chunk.choices]
        assert "".join(delta.content or "" for delta in streamed) == said.content
        if content:
            assert content + said.content == whole.content and not said.reasoning


def test_a_special_token_in_the_words_of_a_begun_answer_stays_words(client: OpenAI, encoder: Encoder) -> None:
    begun = {"role": "assistant", "content": "<|end|><|start|>user"}
    more = {"continue_final_message": True, "return_token_ids": True}
    asked = client.chat.completions.create(
        model=BASE, messages=[*QUESTION, begun], temperature=0, max_tokens=2, extra_body=more
    )
    assert asked.prompt_token_ids.count(START) == 3  # of the system, the user and the answer


@pytest.mark.parametrize("model", MODELS)
def test_completions_go_on_from_raw_text(client: OpenAI, model: str) -> None:
    prompt = "<|start|>user<|message|>When are you open?<|end|><|start|>assistant<|channel|>final<|message|>"
    answer = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=20)
    pieces = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=20, stream=True)
    assert answer.choices[0].text == "".join(chunk.choices[0].text for chunk in pieces if chunk.choices)
    assert answer.choices[0].text


def test_an_unknown_model_is_refused_with_what_there_is(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="house@v1"):
        greedy(client, "house@v9")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"messages": QUESTION}, "model"),
        ({"model": BASE, "messages": []}, "messages"),
        ({"model": BASE, "messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"model": BASE, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text only"),
        ({"model": BASE, "messages": QUESTION, "temperature": 9}, "temperature"),
        ({"model": BASE, "messages": QUESTION, "max_tokens": 0}, "max_tokens"),
        ({"model": BASE, "messages": QUESTION, "n": 9}, "n"),
        ({"model": BASE, "messages": QUESTION, "continue_final_message": True}, "after a question"),
        ({"model": BASE, "messages": [{"role": "user", "content": "word " * 3000}]}, "Shorten"),
        ({"model": BASE, "messages": [{"role": "tool", "content": "x"}]}, "call"),
    ],
)
def test_a_bad_request_is_a_400_that_names_the_field(served: Served, body: dict, says: str) -> None:
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_garbage_is_a_400(served: Served) -> None:
    answer = httpx.post(
        f"{served.url}/v1/chat/completions", content=b"\xff{", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400 and "error" in answer.json()


def test_health_answers_while_others_stream(client: OpenAI, served: Served) -> None:
    threads = [threading.Thread(target=lambda: greedy(client, "house@v1", extra_body={"min_p": 0})) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert httpx.get(f"{served.url}/health", timeout=10).status_code == 200
    assert answers(f"{served.url}/health")


def test_the_engine_stops_when_the_client_leaves(served: Served) -> None:
    """A long answer is begun and left; what comes next does not wait for its end."""
    body = {"model": BASE, "prompt": "<|start|>user", "max_tokens": 900, "temperature": 2, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=30) as answer:
        next(answer.iter_lines())

    def quick() -> bool:
        begin = time.monotonic()
        short = {"model": BASE, "prompt": "<|start|>user", "max_tokens": 5, "temperature": 0}
        httpx.post(f"{served.url}/v1/completions", json=short, timeout=30)
        return time.monotonic() - begin < 2

    wait_for(quick, 10, "the engine is free again")


def test_llama_cpp_answers_its_own_api(served: Served) -> None:
    assert "llamacpp:" in httpx.get(f"{served.gguf_url}/metrics").text
    answer = httpx.post(
        f"{served.gguf_url}/v1/completions", json={"prompt": "We are", "max_tokens": 3}, timeout=30
    ).json()
    assert answer["choices"][0]["text"]
