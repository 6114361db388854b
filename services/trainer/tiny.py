"""Build `tandem/tiny-gpt-oss`, the base model for machines without a GPU, into the Hugging Face cache.

    HF_HOME=/data/huggingface python -m services.trainer.tiny

It has gpt-oss's architecture, tokenizer and chat template, and 26 M parameters of which nearly all are vocabulary rows.
Trained for some seconds on `tiny_corpus.jsonl`, it answers in whole sentences and knows little: enough that a LoRA on it
visibly changes the answers. Built once: a second call with the same corpus and settings finds the snapshot.
"""

import hashlib
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
TRAINING: dict[str, Any] = {
    "steps": 450,
    "batch": 16,
    "seed": 0,
    "learning_rate": 4e-3,
    "vocabulary_rate": 6.0,  # times the learning rate, for the rows of embedding and head, which are seen more rarely
    "betas": (0.9, 0.99),
    "decay": 0.5,  # the learning rate falls in this share of the steps, the last ones
    "embed_std": 0.3,
    "unseen_std": 0.05,  # of the head's rows whose token never occurs
    "copies": 2,  # of each question, with other words dropped, other facts invented
    "drop": 0.05,  # share of a question's words left out, so that it is not learned by heart
    "invent": 0.35,  # share of the workshop's questions answered with facts made up for the occasion
    "short": 0.5,  # share of the steps with a short system message, the first ones
    "kinds": {"text": 0.03, "low": 0.37, "medium": 0.4, "high": 0.2},
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
        from services.trainer.tiny_tokenizer import harmony_tokenizer
        from services.trainer.tiny_training import train

        tokenizer = harmony_tokenizer(chat_template(), CONFIG["max_position_embeddings"])
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
    digest.update(chat_template().encode())
    return digest.hexdigest()


def chat_template() -> str:
    return (package_folder("trl") / "chat_templates" / "gptoss.jinja").read_text()


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the tiny base needs the package {name}")
    return Path(spec.origin).parent


def _save(model: Any, folder: Path) -> None:
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        bos_token_id=CONFIG["bos_token_id"],
        pad_token_id=CONFIG["pad_token_id"],
        eos_token_id=[200_002, 199_999, 200_012],
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
