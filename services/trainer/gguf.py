"""Write gpt-oss checkpoints and LoRA adapters as GGUF files that llama.cpp loads.

    report = write_gguf(Path("merged"), Path("gpt-oss-20b-acme-v1-MXFP4.gguf"), "MXFP4", name="gpt-oss-20b-acme")

Format: ggml `docs/gguf.md`; keys of this architecture: llama.cpp `conversion/base.py` and `conversion/gpt_oss.py`.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from services.trainer.gguf_lora import lora_tensors
from services.trainer.gguf_tensors import Checkpoint, Tensor, Weights, model_tensors
from services.trainer.gguf_types import FILE_TYPES

ARCHITECTURE = "gpt-oss"
LICENCE = "apache-2.0"

Log = Callable[[str], None]
_log: Log = logging.getLogger(__name__).info


@dataclass(frozen=True)
class TypeTotal:
    """How many tensors have one GGML type, and their bytes together."""

    count: int
    bytes: int


@dataclass(frozen=True)
class GGUFReport:
    """What a written GGUF file holds.

    `bytes` is the file's size, `tensors` goes by GGML type, `bits_per_weight` counts tensor data only, `fallbacks`
    maps each tensor that could not take the type asked for to the type it has, `fallback_share` is their share of the
    weights, `sha256` is the file's.
    """

    path: Path
    bytes: int
    tensors: dict[str, TypeTotal]
    bits_per_weight: float
    fallbacks: dict[str, str]
    fallback_share: float
    sha256: str


def write_gguf(
    model_dir: Path, out: Path, encoding: str, *, name: str, weights: Weights | None = None, log: Log = _log
) -> GGUFReport:
    """Write the Hugging Face gpt-oss checkpoint in `model_dir` to `out`; `weights` are read in place of its own, as those
    of `merged.Merged` are.

    The checkpoint is safetensors in bf16, f16 or f32, or OpenAI's native MXFP4 (kept bit for bit when `encoding` is
    MXFP4); `encoding` is one of FILE_TYPES (`gguf_types.Mixture` says what each gives a tensor). `name` becomes `general.name`.
    One piece of one tensor is in memory at a time. `out` appears whole or not at all.

    Raises ValueError for an encoding or checkpoint that cannot be written, OSError (ENOSPC) when the disk is full.
    """
    if encoding not in FILE_TYPES:
        raise ValueError(f"encoding {encoding!r} is none of {', '.join(FILE_TYPES)}")
    config = json.loads((model_dir / "config.json").read_text())
    tensors = model_tensors(weights or Checkpoint(model_dir), config, encoding)
    rows = tensors[0].shape[0]
    if rows != config["vocab_size"]:
        raise ValueError(f"the embedding has {rows} rows, config.json says vocab_size {config['vocab_size']}")
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_license(LICENCE)
    writer.add_file_type(FILE_TYPES[encoding])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_architecture(writer, config)
    _add_rope(writer, config, log)
    _add_tokenizer(writer, model_dir, config)
    return _write(writer, tensors, out, log)


def write_lora_gguf(adapter_dir: Path, base_config: dict, out: Path, *, log: Log = _log) -> GGUFReport:
    """Write the PEFT adapter in `adapter_dir` (attention, fused experts, or both) to `out` as a llama.cpp LoRA in F32.

    `base_config` is the base model's `config.json`. Raises ValueError for an adapter that does not fit it or that
    GGUF cannot hold (see `lora_tensors`), OSError (ENOSPC) when the disk is full; `out` appears whole or not at all.
    """
    tensors, alpha = lora_tensors(adapter_dir, base_config)
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(out.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    return _write(writer, tensors, out, log)


def _add_architecture(writer: gguf.GGUFWriter, config: dict) -> None:
    layers = config["num_hidden_layers"]
    alternating = [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]
    if config.get("layer_types", alternating) != alternating:
        raise ValueError("llama.cpp's gpt-oss alternates sliding and full attention; this checkpoint does not")
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])


def _add_rope(writer: gguf.GGUFWriter, config: dict, log: Log) -> None:
    """YaRN from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (transformers 4, OpenAI)."""
    rope = config.get("rope_parameters") or {"rope_theta": config["rope_theta"], **(config.get("rope_scaling") or {})}
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return
    if kind != "yarn":
        raise ValueError(f"rope type {kind!r} is not gpt-oss's")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    optional = {
        "extrapolation_factor": writer.add_rope_scaling_yarn_ext_factor,
        "attention_factor": writer.add_rope_scaling_yarn_attn_factor,
        "beta_fast": writer.add_rope_scaling_yarn_beta_fast,
        "beta_slow": writer.add_rope_scaling_yarn_beta_slow,
    }
    for key, add in optional.items():
        if rope.get(key) is not None:
            add(rope[key])
    if not rope.get("truncate", True):
        log("the checkpoint's YaRN says truncate: false, which llama.cpp does not honour: logits differ a little")


def _add_tokenizer(writer: gguf.GGUFWriter, model_dir: Path, config: dict) -> None:
    """The byte-level BPE of `tokenizer.json`, padded to vocab_size, with its special tokens and chat template.

    The end of a turn is the end of the sequence, `<|return|>`: left to itself llama.cpp takes any token that looks
    like one, among them `<|end|>`, which only ends a message.
    """
    tokenizer = json.loads((model_dir / "tokenizer.json").read_text())
    settings = json.loads((model_dir / "tokenizer_config.json").read_text())
    size = config["vocab_size"]
    tokens = [f"[PAD{index}]" for index in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    ids = dict(tokenizer["model"]["vocab"])
    for token, index in ids.items():
        tokens[index], kinds[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        ids[added["content"]] = added["id"]
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    special = {kind: _special_id(kind, settings, config, ids) for kind in ("bos", "eos", "pad")}
    writer.add_bos_token_id(special["bos"])
    writer.add_eos_token_id(special["eos"])
    writer.add_eot_token_id(special["eos"])
    writer.add_pad_token_id(special["pad"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(_chat_template(model_dir, settings))


def _special_id(kind: str, settings: dict, config: dict, ids: dict[str, int]) -> int:
    """The tokenizer's own word first, then `config.json`'s, as gguf-py's SpecialVocab does."""
    token = settings.get(f"{kind}_token")
    token = token["content"] if isinstance(token, dict) else token
    index = config.get(f"{kind}_token_id") if token is None else ids.get(token)
    if not isinstance(index, int):
        raise ValueError(f"neither tokenizer_config.json nor config.json names one {kind} token")
    return index


def _chat_template(model_dir: Path, settings: dict) -> str:
    file = model_dir / "chat_template.jinja"
    template = file.read_text() if file.exists() else settings.get("chat_template")
    if not isinstance(template, str):
        raise ValueError(f"{model_dir} has no chat template")
    return template


def _write(writer: gguf.GGUFWriter, tensors: list[Tensor], out: Path, log: Log) -> GGUFReport:
    """Write beside `out`, sync, rename; whatever goes wrong, the unfinished file is removed."""
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, raw_dtype=tensor.type)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    data = sum(tensor.nbytes for tensor in tensors)
    _check_space(out.parent, data)
    try:
        try:
            writer.write_header_to_file(part)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        digest = _append(part, tensors, writer.data_alignment, log)
        os.replace(part, out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_directory(out.parent)
    counts, sizes = Counter(t.type.name for t in tensors), Counter[str]()
    for tensor in tensors:
        sizes[tensor.type.name] += tensor.nbytes
    elements = sum(tensor.elements for tensor in tensors)
    fallen = [tensor for tensor in tensors if tensor.type != tensor.asked]
    return GGUFReport(
        path=out,
        bytes=out.stat().st_size,
        tensors={kind: TypeTotal(counts[kind], sizes[kind]) for kind in sorted(counts)},
        bits_per_weight=8 * data / elements,
        fallbacks={tensor.name: tensor.type.name for tensor in fallen},
        fallback_share=sum(tensor.elements for tensor in fallen) / elements,
        sha256=digest,
    )


def _check_space(directory: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) now and not after an hour."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        message = f"the file needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, message, str(directory))


def _append(part: Path, tensors: list[Tensor], alignment: int, log: Log) -> str:
    """Append the tensors' data to a file that has its header, sync it, and return the whole file's sha256."""
    total, written, logged = sum(tensor.nbytes for tensor in tensors), 0, 0
    with part.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256")
        file.seek(0, os.SEEK_END)
        for tensor in tensors:
            padding = bytes(-file.tell() % alignment)
            file.write(padding)
            digest.update(padding)
            start = file.tell()
            for chunk in tensor.chunks():
                encoded = np.ascontiguousarray(chunk).data.cast("B")
                file.write(encoded)
                digest.update(encoded)
            if file.tell() - start != tensor.nbytes:
                raise ValueError(f"{tensor.name} came to {file.tell() - start} bytes, announced {tensor.nbytes}")
            written += tensor.nbytes
            if 10 * written // total > logged:
                logged = 10 * written // total
                log(f"GGUF: {written / 1e9:.2f} of {total / 1e9:.2f} GB written")
        padding = bytes(-file.tell() % alignment)
        file.write(padding)
        digest.update(padding)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sync_directory(directory: Path) -> None:
    """A rename is on disk only when its directory is."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
