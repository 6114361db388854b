"""A gpt-oss of two layers with a tokenizer of 512 tokens, and its continuations by llama.cpp and by transformers."""

import copy
import functools
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import xllamacpp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GptOssConfig, GptOssForCausalLM

VOCAB = 512
SPECIAL = "startoftext endoftext return constrain channel start end message call".split()
# pat_str of o200k_base in openai/tiktoken (tiktoken_ext/openai_public.py)
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
PROMPT = torch.randint(0, 400, (40,), generator=torch.Generator().manual_seed(7)).tolist()


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(O200K), "removed", invert=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=460, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([__doc__ or "", Path(__file__).read_text()], trainer)
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    return tokenizer


def save(model: GptOssForCausalLM, directory: Path, **options: str) -> Path:
    """The model in bf16 with its tokenizer and chat template, as `directory`."""
    tokenizer = make_tokenizer()
    copy.deepcopy(model).bfloat16().save_pretrained(directory, **options)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    return directory


@functools.cache
def tiny(width: int = 64) -> GptOssForCausalLM:
    """Two layers, four experts, every parameter random (biases and sinks too) and exact in bf16. Do not change it.

    With a `width` of 256 every row divides into the blocks of K-quants."""
    torch.manual_seed(0)
    rope = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    config = GptOssConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=width if width % 256 == 0 else 96, num_hidden_layers=2,
        num_local_experts=4, num_experts_per_tok=2, num_attention_heads=width // 16, num_key_value_heads=2, head_dim=32,
        sliding_window=16,
        rope_parameters=rope | {"rope_theta": 150000.0, "original_max_position_embeddings": 4096},
    )  # fmt: skip
    model = GptOssForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.randn_like(parameter) * 0.3 * (64 / width) ** 0.5).bfloat16())
    return model


@contextmanager
def served(model: Path, lora: Path | None = None) -> Iterator[Callable[[str, dict], dict]]:
    """llama.cpp's HTTP server on a free port; yields post(path, body) -> answer."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.verbosity, params.ui = 256, 0, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = str(lora), 1.0
        params.lora_adapters = [adapter]
    server = xllamacpp.Server(params)

    def post(path: str, body: dict) -> dict:
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode())  # noqa: F821  # deleted at the end only
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    try:
        yield post
    finally:
        del server


@functools.cache
def banned() -> list[int]:
    """Tokens left out of continuations: special ones, and pieces of a character (llama.cpp reports none)."""
    tokenizer = make_tokenizer()
    pieces = [token for token in range(VOCAB) if "\ufffd" in tokenizer.decode([token], skip_special_tokens=False)]
    return pieces + list(range(tokenizer.get_vocab_size(with_added_tokens=False), VOCAB))


def continuation(path: Path, lora: Path | None = None, length: int = 8) -> tuple[list[int], np.ndarray]:
    """llama.cpp's greedy tokens after PROMPT and their logprobs."""
    body = {"prompt": PROMPT, "n_predict": length, "temperature": 0, "n_probs": 1}
    with served(path, lora) as post:
        answer = post("/completion", body | {"logit_bias": [[token, False] for token in banned()]})
    steps = answer["completion_probabilities"]
    return [step["id"] for step in steps], np.array([step["logprob"] for step in steps])


@torch.no_grad()
def reference(model: GptOssForCausalLM, length: int = 8) -> tuple[list[int], np.ndarray]:
    """The same from transformers, in float32 and without a cache."""
    tokens, logprobs = list(PROMPT), []
    for _ in range(length):
        step = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
        step[banned()] = -torch.inf
        tokens.append(int(step.argmax()))
        logprobs.append(float(step.max()))
    return tokens[len(PROMPT) :], np.array(logprobs)
