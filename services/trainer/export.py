"""Export an adapter: ask it, merge it into the base as the file is written, compare the two, publish.

python -m services.trainer.export RUN_ID
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import gc
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from services.trainer import parity
from services.trainer.child import Context, Refused, main
from services.trainer.gguf import write_gguf
from services.trainer.gguf_tensors import Checkpoint, model_tensors
from services.trainer.lora import read_pairs
from services.trainer.merged import Merged, write_merged
from services.trainer.model import load_adapter, load_base
from shared import hub, registry
from shared.schemas import AdapterCard, ExportCard


def export(context: Context) -> None:
    job = context.spec.job
    adapter = registry.adapter_card(context.store, str(job.adapter))
    base = hub.snapshot(adapter.base_model, adapter.base_revision, context.settings.hf_home)
    view = merged_view(context, adapter, base, dense=job.encoding == "merged")
    check_room(context, view, base, str(job.encoding))
    with context.store.staging(context.store.exports()) as staged:
        context.progress(0, 4)
        context.log(f"Asking {adapter.reference} what the export must answer, too.")
        reference, prompts = ask(context, adapter, base)
        context.check()

        context.progress(1, 4)
        context.log(f"Merging {adapter.reference} into {adapter.base_model} as {job.encoding}.")
        if job.encoding == "merged":
            finished = staged / "merged"
            write_merged(view, base, finished, context.check)
            facts = merged_facts(finished)
        else:
            finished = staged / f"{adapter.name}-{adapter.version}-{job.encoding}.gguf"
            report = write_gguf(
                base, finished, str(job.encoding), name=adapter.reference, weights=view, log=context.log
            )
            facts = {k: v for k, v in asdict(report).items() if k != "path"}
        context.check()

        context.progress(2, 4)
        context.log("Comparing the export with the adapter on held-out prompts.")
        measured = parity.measure(finished, prompts, reference)
        context.event("parity", **measured)
        parity.judge(measured, str(job.encoding))

        context.progress(3, 4)
        suffix = "merged" if job.encoding == "merged" else f"{job.encoding}.gguf"
        card = ExportCard(
            file=f"{adapter.name}-{adapter.version}-{suffix}",
            run=context.spec.id,
            adapter=adapter.reference,
            adapter_sha256=adapter.sha256,
            base_model=adapter.base_model,
            base_revision=adapter.base_revision,
            encoding=job.encoding,
            parity=measured,
            **json.loads(json.dumps(facts, default=str)),
        )
        registry.publish_export(context.store, finished, card)
    context.progress(4, 4)
    context.event("published", name=card.file)


def merged_view(context: Context, adapter: AdapterCard, base: Path, *, dense: bool) -> Merged:
    """The base's files with the adapter's deltas added as they are read, attention and experts alike."""
    config = json.loads((base / "config.json").read_text())
    pairs = read_pairs(context.store.adapter(adapter.reference), config)
    return Merged(Checkpoint(base), pairs, dense=dense)


def check_room(context: Context, view: Merged, base: Path, encoding: str) -> None:
    """Raises Refused if the disk cannot hold the export."""
    if encoding == "merged":
        needed = 2 * sum(math.prod(view.shape(name)) for name in view.names())
    else:
        tensors = model_tensors(view, json.loads((base / "config.json").read_text()), encoding)
        needed = sum(tensor.nbytes for tensor in tensors)
    needed += 64 << 20  # the tokenizer, the cards
    free = shutil.disk_usage(context.store.root).free
    if free < needed:
        raise Refused(
            f"The export needs about {needed / 1e9:.1f} GB under {context.store.root} and {free / 1e9:.1f} GB are free. "
            "Delete exports or checkpoints that are not needed, then resume the run."
        )


def ask(context: Context, adapter: AdapterCard, base: Path) -> tuple[list[parity.Answer], list[list[int]]]:
    """The adapter's own answers, unmerged, and the prompts they answer: what the export is compared with. The model is let
    go of, so that its memory is there for the export."""
    model, _ = load_base(context, adapter.base_model, adapter.base_revision, adapter.values.max_length, "auto")
    model = load_adapter(model, context.store.adapter(adapter.reference))
    prompts = parity.prompts(context, adapter, base)
    reference = parity.answers(model, prompts)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return reference, prompts


def merged_facts(folder: Path) -> dict[str, Any]:
    """What the card says of merged weights."""
    weights = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in weights)
    return {"sha256": registry.sha256(weights[0]), "bytes": size, "bits_per_weight": 16.0}


if __name__ == "__main__":
    main(export)
