"""A folder of merged weights asked through transformers, one layer of it in memory at a time: 42 GB pass in a few.

    with Streamed(folder) as model:
        model.read(prompts, answers, top=40)

A process of its own does it, in which Unsloth has changed nothing: what answers is what others will load.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from services.trainer.child import Refused
from services.trainer.gguf_tensors import Checkpoint

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Streamed:
    """Has the interface of `served.Served`. Its speed would say nothing of a model that is loaded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "Streamed":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, prompts: list[list[int]], answers: list[list[int]], top: int) -> list[list[dict[int, float]]]:
        """At each place of each answer the `top` likeliest next tokens with their log-probabilities.

        Raises Refused when transformers cannot read the folder."""
        asked = json.dumps({"prompts": prompts, "answers": answers, "top": top})
        command = [sys.executable, "-m", "services.trainer.streamed", str(self.folder)]
        done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Refused(
                "transformers could not read the merged weights; log.txt has what it said. It was not published."
            )
        return [[dict(map(tuple, place)) for place in places] for places in json.loads(done.stdout)]

    def same_tokens(self, prompts: list[list[int]]) -> bool:
        """Whether the folder's tokenizer turns each prompt's text into its tokens."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts] == prompts

    def speed(self, prompts: list[list[int]]) -> None:
        """None."""


def empty_model(folder: Path) -> Any:
    """The model of `folder` whose blocks are read as they are reached and let go of behind it."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    weights = Checkpoint(folder)
    blocks = {f"model.layers.{number}": layer for number, layer in enumerate(model.model.layers)}
    blocks |= {"model.embed_tokens": model.model.embed_tokens, "model.norm": model.model.norm, "lm_head": model.lm_head}
    for name, block in blocks.items():
        _stream(block, name, weights)
    model.model.rotary_emb.to(DEVICE)
    return model


def _stream(block: torch.nn.Module, name: str, weights: Checkpoint) -> None:
    keys = list(block.state_dict())

    def fill(*_: object) -> None:
        held = {key: weights.rows(f"{name}.{key}", 0, weights.shape(f"{name}.{key}")[0]) for key in keys}
        block.load_state_dict({key: tensor.to(DEVICE) for key, tensor in held.items()}, assign=True)

    block.register_forward_pre_hook(fill)
    block.register_forward_hook(lambda *_: block.to("meta") and None)


@torch.inference_mode()
def read(folder: Path, prompts: list[list[int]], answers: list[list[int]], top: int) -> list[list[list[tuple]]]:
    """What `Streamed.read` gives, as pairs (token, log-probability). All texts go through the model together, shorter ones
    with padding behind them, which nothing before it sees."""
    model = empty_model(folder)
    texts = [torch.tensor(p + a[:-1]) for p, a in zip(prompts, answers, strict=True)]
    batch = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(DEVICE)
    hidden = model.model(input_ids=batch, use_cache=False).last_hidden_state
    places = [
        hidden[i, len(p) - 1 : len(p) + len(a) - 1] for i, (p, a) in enumerate(zip(prompts, answers, strict=True))
    ]
    likely = model.lm_head(torch.cat(places)).float().log_softmax(-1).topk(top)
    pairs = [list(zip(i, v, strict=True)) for i, v in zip(likely.indices.tolist(), likely.values.tolist(), strict=True)]
    return [[pairs.pop(0) for _ in answer] for answer in answers]


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]), **json.load(sys.stdin))))
