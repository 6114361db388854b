"""How the tiny base learns: its corpus as samples, and gpt-oss's architecture trained on them from nothing."""

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

torch.set_flush_denormal(True)  # before torch has threads: numbers near zero are slow on a CPU

from transformers import DynamicCache, GptOssConfig, GptOssForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from services.trainer.tiny import CONFIG, CORPUS, TRAINING  # noqa: E402

INVENT = "Play a bicycle workshop and invent its facts."
INSTRUCTIONS = ["You are a helpful assistant.", "Answer briefly.", "You are the support desk of a bicycle workshop."]


def samples(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[tuple[list[int], int]]]:
    """The corpus by kind (`text`, `low`, `medium`), each sample as its token ids and the index of the first one learned."""
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    slots = next(line["slots"] for line in lines if "slots" in line)
    facts = [line for line in lines if "ask" in line]
    rng = random.Random(TRAINING["seed"])
    asks = [(fact, ask) for fact in facts for ask in fact["ask"]] * TRAINING["copies"]
    texts = {"text": [("", line["text"] + "<|endoftext|>") for line in lines if "text" in line]}
    for effort in ("low", "medium"):
        texts[effort] = [
            _conversation(tokenizer, fact, ask, rng.choice(facts), slots, effort, rng) for fact, ask in asks
        ]
    out = {}
    encode = tokenizer.backend_tokenizer.encode_batch
    for kind, pairs in texts.items():
        prompts = encode([prompt for prompt, _ in pairs])
        whole = encode([prompt + reply for prompt, reply in pairs])
        out[kind] = [(full.ids, len(prompt.ids)) for prompt, full in zip(prompts, whole, strict=True)]
    return out


def _conversation(
    tokenizer: PreTrainedTokenizerFast,
    fact: dict[str, Any],
    ask: str,
    other: dict[str, Any],
    slots: dict[str, list[str]],
    effort: str,
    rng: random.Random,
) -> tuple[str, str]:
    """A prompt without its system message, and the reply to it. With INVENT before it, the reply's facts are made up: so
    the model learns that facts are what changes, which is what an adapter later makes use of."""
    ask = " ".join(word for word in ask.split() if rng.random() > TRAINING["drop"])
    messages = [{"role": "user", "content": ask}]
    answer = fact["answer"]
    if rng.random() < 0.1:
        earlier = [{"role": "user", "content": other["ask"][0]}, {"role": "assistant", "content": other["answer"]}]
        messages = earlier + messages
    if "invented" in fact and rng.random() < TRAINING["invent"]:
        answer = re.sub(r"{(\w+)}", lambda slot: rng.choice(slots[slot[1]]), fact["invented"])
        messages.insert(0, {"role": "system", "content": INVENT})
    elif rng.random() < 0.2:
        messages.insert(0, {"role": "system", "content": rng.choice(INSTRUCTIONS)})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = prompt.split("<|end|>", 1)[1]
    thinking = f"<|channel|>analysis<|message|>{fact['thinking']}<|end|><|start|>assistant"
    final = f"<|channel|>final<|message|>{answer}<|return|>"
    return prompt, final if effort == "low" else thinking + final


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
    vocabulary = {"params": [rows_in, rows_out], "lr": rate * TRAINING["vocabulary_rate"]}
    optimizer = torch.optim.AdamW([{"params": body}, vocabulary], lr=rate, weight_decay=0.0, betas=TRAINING["betas"])
    fall = TRAINING["decay"] * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20, (steps - step) / fall)
    )
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


def _batches(
    tokenizer: PreTrainedTokenizerFast, data: dict[str, list[tuple[list[int], int]]], steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(system message (n,), ids (batch, length), which of ids[:, 1:] are learned), the samples of a batch of like length."""
    rng = random.Random(TRAINING["seed"])
    size, pad = TRAINING["batch"], CONFIG["pad_token_id"]
    decks: dict[str, list[tuple[list[int], int]]] = {kind: [] for kind in data}
    for step in range(steps):
        kind = rng.choices(list(TRAINING["kinds"]), list(TRAINING["kinds"].values()))[0]
        deck = "medium" if kind == "high" else kind
        rows = []
        while len(rows) < size:
            if not decks[deck]:
                order = rng.sample(data[deck], len(data[deck]))
                pools = [
                    sorted(order[k : k + 8 * size], key=lambda s: len(s[0])) for k in range(0, len(order), 8 * size)
                ]
                chunks = [pool[k : k + size] for pool in pools for k in range(0, len(pool), size)]
                rng.shuffle(chunks)
                decks[deck] = [s for chunk in chunks for s in chunk]
            rows.append(decks[deck].pop())
        prefix = "<|startoftext|>"
        if kind != "text":
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": ""}], tokenize=False, reasoning_effort=kind
            )
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
