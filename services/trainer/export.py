"""Export an adapter: ask it, merge it into the base as the file is written, compare the two, publish.

python -m services.trainer.export RUN_ID
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import gc
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from services.trainer import needs, parity
from services.trainer.child import Context, main
from services.trainer.gguf import write_gguf, write_lora_gguf
from services.trainer.gguf_tensors import Checkpoint
from services.trainer.lora import read_pairs
from services.trainer.merged import Merged, write_merged
from services.trainer.model import load_adapter, load_base
from services.trainer.served import Served
from services.trainer.streamed import Streamed
from shared import hub, registry
from shared.schemas import AdapterCard, ExportCard


def export(context: Context) -> None:
    job = context.spec.job
    encoding = str(job.encoding)
    adapter = registry.adapter_card(context.store, str(job.adapter))
    base = hub.snapshot(adapter.base_model, adapter.base_revision, context.settings.hf_home)
    folder = context.store.adapter(adapter.reference)
    view = merged_view(base, folder, dense=encoding == "merged")
    needs.check(context, view, base, folder, encoding)
    with context.store.staging(context.store.exports()) as staged:
        context.progress(0, 4)
        context.log(f"Asking {adapter.reference} what the export must answer, too.")
        reference, prompts = ask(context, adapter, base)
        context.check()

        context.progress(1, 4)
        context.log(f"Writing {adapter.reference} on {adapter.base_model} as {encoding}.")
        suffix = "merged" if encoding == "merged" else f"{encoding}.gguf"
        finished = staged / f"{adapter.name}-{adapter.version}-{suffix}"
        facts = write(context, view, base, folder, finished)
        context.check()

        context.progress(2, 4)
        context.log("Comparing the export with the adapter on held-out prompts.")
        measured = parity.measure(asked(context, view, base, finished), prompts, reference)
        if encoding == "LoRA":
            measured["base"] = needs.exact_encoding(view)
        context.event("parity", **measured)
        parity.judge(measured, encoding)

        context.progress(3, 4)
        card = ExportCard(
            file=finished.name,
            run=context.spec.id,
            adapter=adapter.reference,
            adapter_sha256=adapter.sha256,
            base_model=adapter.base_model,
            base_revision=adapter.base_revision,
            encoding=job.encoding,
            parity=measured,
            **facts,
        )
        registry.publish_export(context.store, finished, card)
    context.progress(4, 4)
    context.event("published", name=card.file)


def merged_view(base: Path, adapter: Path, *, dense: bool) -> Merged:
    """The base's files with the adapter's deltas added as they are read, attention and experts alike."""
    config = json.loads((base / "config.json").read_text())
    return Merged(Checkpoint(base), read_pairs(adapter, config), dense=dense)


def write(context: Context, view: Merged, base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """Write the export that the job asks for to `out`; what its card says of it."""
    encoding = str(context.spec.job.encoding)
    if encoding == "merged":
        write_merged(view, base, out, context.check)
        return merged_facts(out)
    if encoding == "LoRA":
        report = write_lora_gguf(adapter, json.loads((base / "config.json").read_text()), out, log=context.log)
    else:
        name = str(context.spec.job.adapter)
        report = write_gguf(base, out, encoding, name=name, weights=view, log=context.log)
    return {key: value for key, value in asdict(report).items() if key != "path"}


def asked(context: Context, view: Merged, base: Path, finished: Path) -> Served | Streamed:
    """Who answers for the export. A LoRA answers on its base, which is written beside it and thrown away with the folder."""
    if finished.is_dir():
        return Streamed(finished)
    if context.spec.job.encoding != "LoRA":
        return Served(finished)
    encoding = needs.exact_encoding(view)
    context.log(f"Writing the base as {encoding}, to compare the LoRA on it.")
    report = write_gguf(base, finished.with_name("base.gguf"), encoding, name="base", log=context.log)
    return Served(report.path, finished)


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
