"""What is served to many at once, of base and adapter, is transformers' own greedy answer to each, token for token."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import torch
from peft import PeftModel
from transformers import GptOssForCausalLM

from services.inference.generation import STOPS
from shared import hub
from tests.conftest import BASE
from tests.integration.conftest import Served

QUESTIONS = ["When are you open?", "How do I return an order?"]
TOKENS = 16


def test_a_mix_of_base_and_adapter_is_answered_as_transformers_would(served: Served) -> None:
    def ask(line: tuple[str, str]) -> dict:
        model, question = line
        messages = [{"role": "user", "content": question}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": TOKENS, "return_token_ids": True}
        return httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=120).json()

    asked = [(model, question) for question in QUESTIONS for model in (BASE, "house@v1")]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(ask, asked))
    folder = hub.snapshot(BASE, "main", served.settings.hf_home)
    judge = GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name in (BASE, "house@v1"):
        if name != BASE:
            judge = PeftModel.from_pretrained(judge, str(served.store.adapter(name))).eval()
        for (model, _), answer in zip(asked, answers, strict=True):
            if model == name:
                assert answer["choices"][0]["token_ids"] == greedy(judge, answer["prompt_token_ids"])


@torch.inference_mode()
def greedy(judge: GptOssForCausalLM, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    whole = judge.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=TOKENS,
        eos_token_id=list(STOPS),
    )
    return whole[0, len(prompt) :].tolist()
