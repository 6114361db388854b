"""Export an adapter: merge into the base, write GGUF, compare with the adapter, publish.

python -m services.trainer.export RUN_ID
"""

import services.trainer.unsloth_first  # noqa: F401, I001

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.trainer import parity
from services.trainer.child import Context, Refused, main
from services.trainer.gguf import write_gguf
from services.trainer.model import load_adapter, load_base
from shared import hub, registry
from shared.schemas import AdapterCard, ExportCard

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def export(context: Context) -> None:
    job = context.spec.job
    adapter = registry.adapter_card(context.store, str(job.adapter))
    base = hub.snapshot(adapter.base_model, adapter.base_revision, context.settings.hf_home)
    check_room(context, base)
    with context.store.staging(context.store.exports()) as staged:
        context.progress(0, 4)
        context.log(f"Merging {adapter.reference} into {adapter.base_model}.")
        reference, prompts = merge(context, adapter, base, staged / "merged")
        context.check()

        context.progress(1, 4)
        if job.encoding == "merged":
            finished, facts = staged / "merged", merged_facts(staged / "merged")
        else:
            context.log(f"Writing GGUF as {job.encoding}.")
            finished = staged / f"{adapter.name}-{adapter.version}-{job.encoding}.gguf"
            report = write_gguf(staged / "merged", finished, str(job.encoding), name=adapter.reference, log=context.log)
            facts = {k: v for k, v in asdict(report).items() if k != "path"}
            shutil.rmtree(staged / "merged")
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


def check_room(context: Context, base: Path) -> None:
    """Raises Refused if the disk cannot hold the merged weights and the file made of them."""
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    # An MXFP4 checkpoint grows fourfold as 16 bits; its export is about its own size again.
    config = json.loads((base / "config.json").read_text())
    needed = size * (5 if config.get("quantization_config") else 2) + (64 << 20)
    free = shutil.disk_usage(context.store.root).free
    if free < needed:
        raise Refused(
            f"The export needs about {needed / 1e9:.1f} GB under {context.store.root} and {free / 1e9:.1f} GB are free. "
            "Delete exports or checkpoints that are not needed, then resume the run."
        )


def merge(
    context: Context, adapter: AdapterCard, base: Path, folder: Path
) -> tuple[list[parity.Answer], list[list[int]]]:
    """Write the base with the adapter's deltas added, attention and experts alike, to `folder` as 16-bit weights.

    Returns the unmerged adapter's answers, and the prompts they answer, which the export is then compared with."""
    model, _ = load_base(context, adapter.base_model, adapter.base_revision, adapter.values.max_length, "auto")
    model = load_adapter(model, context.store.adapter(adapter.reference))
    prompts = parity.prompts(context, adapter, base)
    reference = parity.answers(model, prompts)
    model = model.merge_and_unload()
    model.config.use_cache = True
    folder.mkdir(parents=True)
    model.to(parity.SIXTEEN_BIT).save_pretrained(str(folder), max_shard_size="4GB")
    for name in TOKENIZER_FILES:
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)
    return reference, prompts


def merged_facts(folder: Path) -> dict[str, Any]:
    """What the card says of merged weights."""
    weights = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in weights)
    return {"sha256": registry.sha256(weights[0]), "bytes": size, "bits_per_weight": 16.0}


if __name__ == "__main__":
    main(export)
