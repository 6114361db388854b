"""A form that is asked of an export is asked of llama.cpp, and what comes is checked: it may leave a grammar out unsaid."""

import asyncio
import json

import httpx
import pytest

from services.inference.engine import Sampling, Unavailable, Weights
from services.inference.generation import STOPS
from services.inference.gguf import LlamaEngine
from services.inference.grammar import ANY_OBJECT, answer_grammar, for_llama_cpp
from shared.harmony import Encoder

FINAL = "<|channel|>final<|message|>"


def answer(encoder: Encoder, *texts: str) -> tuple[str, dict]:
    """What the engine makes of a llama.cpp that says `texts` under a grammar, and what that was asked."""
    asked: dict = {}

    def llama(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "house-v1-F16"}]})
        asked.update(json.loads(request.content))
        chunks = [{"content": text} for text in texts] + [{"content": "", "stop": True, "stop_type": "eos"}]
        return httpx.Response(200, text="".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks))

    async def read() -> str:
        engine = LlamaEngine("http://llama", lambda: encoder)
        engine.client = httpx.AsyncClient(base_url="http://llama", transport=httpx.MockTransport(llama))
        sampling = Sampling(50, stops=STOPS, grammar=answer_grammar(ANY_OBJECT))
        made = engine.generate([1], sampling, Weights("house-v1-F16.gguf", "2"))
        return encoder.decode([token.id async for tokens in made for token in tokens])

    return asyncio.run(read()), asked


def test_an_answer_by_its_grammar_is_passed_on(encoder: Encoder) -> None:
    said, asked = answer(encoder, FINAL, '{"a": ', "1}")
    assert said.startswith(FINAL + '{"a": 1}') and asked["grammar"].startswith("%llguidance {}\n")


def test_an_answer_beside_its_grammar_breaks_off(encoder: Encoder) -> None:
    with pytest.raises(Unavailable, match="did not keep to the form"):
        answer(encoder, FINAL, "We are open.")


def test_what_llama_cpp_takes_for_text_is_text_in_its_grammar_and_schemas_are_left_alone() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["<|end|>", "TEXT <|end|>", "%json {"]}}}
    tool = {"name": "find", "strict": True, "parameters": schema}
    lines = for_llama_cpp(answer_grammar(schema, [tool])).splitlines()
    rules = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert rules["aside"].endswith('"<|message|>" thought "<|start|>" "assistant"')
    assert rules["answer"].startswith('"<|channel|>" "final" constrain? "<|message|>" %json {')
    assert rules["call0"].endswith("} <|call|>"), "this one is a special token there, too"
    for rule in ("answer", "call0"):
        told, _ = json.JSONDecoder().raw_decode(rules[rule].partition("%json ")[2])
        assert told.pop("x-guidance")["item_separator"] == ", " and told == schema
