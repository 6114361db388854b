"""Does an export answer as its adapter does? The same prompts, greedily, token by token."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.trainer.child import Context, Refused
from services.trainer.data import today
from shared import hub
from shared.datasets import is_validation, stream
from shared.harmony import Encoder, HarmonyError, render, row_examples
from shared.schemas import AdapterCard
from shared.store import NotFound

PROMPTS, NEW_TOKENS, TOP = 6, 24, 40
# Least agreement (top-1, cosine) that is published: a wrong tensor, scale or template falls far below. Four bits in the
# experts may tip a token now and then, so MXFP4 is held to less.
LEAST = {"F16": (0.95, 0.99), "merged": (0.95, 0.99), "Q8_0": (0.9, 0.98), "MXFP4": (0.8, 0.95)}


@dataclass
class Answer:
    """A greedy answer: its token ids, and at each the likeliest tokens with their log-probabilities."""

    ids: list[int]
    top: list[dict[int, float]]


def prompts(context: Context, adapter: AdapterCard, base: Path) -> list[list[int]]:
    """Token ids of up to PROMPTS prompts from the adapter's validation rows; from three plain questions without them."""
    encoder = hub.encoder(base)
    try:
        rows = [
            r
            for r in stream(context.store.dataset(adapter.dataset))
            if is_validation(r, adapter.values.validation_share)
        ]
    except (FileNotFoundError, NotFound):
        rows = []
    found = []
    for row in rows[: 4 * PROMPTS] or [{"messages": [{"role": "user", "content": q}]} for q in QUESTIONS]:
        try:
            ids = _prompt(row, encoder)
        except HarmonyError:
            continue
        if len(ids) <= adapter.values.max_length and len(found) < PROMPTS:
            found.append(ids)
    return found


def _prompt(row: dict[str, Any], encoder: Encoder) -> list[int]:
    """What a row asks, without its answers; of a text its beginning."""
    if "text" in row:
        return row_examples(row, encoder=encoder, date=today())[0].ids[:NEW_TOKENS]
    asked = [m for m in row["messages"] if m["role"] != "assistant"]
    return encoder.encode(render({**row, "messages": asked}, date=today(), generate=True))


QUESTIONS = ("What can you do for me?", "Tell me something about yourself.", "How do I begin?")


@torch.no_grad()
def answers(model: Any, prompts: list[list[int]]) -> list[Answer]:
    """Greedy answers of a transformers model with a growing context, NEW_TOKENS at most."""
    model.eval()
    device = next(model.parameters()).device
    return [_answer(model, ids, device) for ids in prompts]


def _answer(model: Any, ids: list[int], device: torch.device) -> Answer:
    answer, cache = Answer([], []), None
    step = torch.tensor([ids], device=device)
    for _ in range(NEW_TOKENS):
        out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        values, indices = out.logits[0, -1].float().log_softmax(-1).topk(TOP)
        answer.top.append(dict(zip(indices.tolist(), values.tolist(), strict=True)))
        answer.ids.append(int(indices[0]))
        if answer.ids[-1] in (200002, 200012, 199999):
            break
        step = indices[:1].view(1, 1)
    return answer


def measure(export: Path, prompts: list[list[int]], reference: list[Answer]) -> dict[str, Any]:
    """Agreement of the export with the adapter's greedy answers, teacher-forced so that one difference is counted once:
    {"prompts", "tokens", "prompt_tokens_equal", "top1", "cosine", "exact_answers"}.

    `cosine` is the mean cosine of the two next-token distributions over their likeliest tokens."""
    top1: list[bool] = []
    cosines: list[float] = []
    tokens_equal = True
    with _server(export) if export.is_file() else _Merged(export) as ask:
        for ids, answer in zip(prompts, reference, strict=True):
            tokens_equal &= ask.same_tokens(ids)
            for position, (token, top) in enumerate(zip(answer.ids, answer.top, strict=True)):
                theirs = ask.next(ids + answer.ids[:position])
                top1.append(max(theirs, key=theirs.__getitem__) == token)
                cosines.append(_cosine(top, theirs))
    exact = _exact(top1, reference)
    return {
        "prompts": len(prompts),
        "tokens": len(top1),
        "prompt_tokens_equal": tokens_equal,
        "top1": sum(top1) / len(top1),
        "cosine": sum(cosines) / len(cosines),
        "exact_answers": exact,
    }


def judge(measured: dict[str, Any], encoding: str) -> None:
    """Raises Refused if the export must not be published."""
    top1, cosine = LEAST[encoding]
    if not measured["prompt_tokens_equal"]:
        raise Refused(
            "The export's tokenizer renders a prompt to other tokens than the adapter's. It was not published."
        )
    if measured["top1"] < top1 or measured["cosine"] < cosine:
        raise Refused(
            f"The export does not agree with its adapter: top-1 {measured['top1']:.3f} (at least {top1}), cosine "
            f"{measured['cosine']:.4f} (at least {cosine}). It was not published. F16 is the encoding with the least loss."
        )


def _cosine(a: dict[int, float], b: dict[int, float]) -> float:
    keys = sorted(set(a) | set(b))
    x, y = (torch.tensor([side.get(k, -1e9) for k in keys], dtype=torch.float64).exp() for side in (a, b))
    return float(torch.nn.functional.cosine_similarity(x, y, dim=0))


def _exact(top1: list[bool], reference: list[Answer]) -> float:
    whole, at = 0, 0
    for answer in reference:
        whole += all(top1[at : at + len(answer.ids)])
        at += len(answer.ids)
    return whole / len(reference)


class _Merged:
    """Merged weights, asked through transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def __enter__(self) -> "_Merged":
        return self

    def __exit__(self, *_: object) -> None:
        del self.model

    @torch.no_grad()
    def next(self, ids: list[int]) -> dict[int, float]:
        values, indices = (
            self.model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float().log_softmax(-1).topk(TOP)
        )
        return dict(zip(indices.tolist(), values.tolist(), strict=True))

    def same_tokens(self, ids: list[int]) -> bool:
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] == ids


class _Served:
    """A GGUF file, asked through llama.cpp's server."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url

    def __enter__(self) -> "_Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def next(self, ids: list[int]) -> dict[int, float]:
        answer = _post(
            f"{self.url}/completion",
            {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": TOP, "cache_prompt": True},
        )
        found = answer["completion_probabilities"]
        if not found:  # llama.cpp leaves out a token that ends inside a character
            return {answer["tokens"][0] if answer.get("tokens") else -1: 0.0}
        return {entry["id"]: entry["logprob"] for entry in found[0]["top_logprobs"]}

    def same_tokens(self, ids: list[int]) -> bool:
        text = _post(f"{self.url}/detokenize", {"tokens": ids})["content"]
        back = _post(f"{self.url}/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
        return back == ids


def _server(export: Path) -> _Served:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "shared.llama_server", str(export), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return _Served(process, url)
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise Refused(f"llama.cpp could not load {export.name}; log.txt has what it said. It was not published.")


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)
