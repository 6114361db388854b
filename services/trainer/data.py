"""Rows as examples of token ids and labels, split into training and validation."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Sequence, Value
from datasets.arrow_writer import ArrowWriter

from services.trainer import preferences
from services.trainer.child import Context, Refused
from shared import registry
from shared.datasets import is_validation, stream
from shared.harmony import Encoder, Example, HarmonyError, row_examples
from shared.schemas import Recipe

FEATURES = Features({"input_ids": Sequence(Value("int32")), "labels": Sequence(Value("int32"))})


@dataclass
class Counts:
    """What became of the rows of one side of the split; tokens are counted over examples."""

    rows: int = 0
    examples: int = 0
    tokens: int = 0
    longest: int = 0
    supervised_tokens: int = 0
    truncated: int = 0
    without_supervised: int = 0
    unrendered: list[str] = field(default_factory=list)


def render(context: Context, recipe: Recipe, encoder: Encoder) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """The training and the validation examples of the run's data set, and their counts.

    Raises Refused when nothing would be learned from them."""
    folder = context.store.dataset(registry.dataset_reference(context.store, str(context.spec.job.dataset)))
    date = context.spec.created[:10]  # the prompt's date is the run's, so that a resume renders the same
    sides, counts = [], {}
    for side in ("train", "validation"):
        count = Counts()
        rows = _side(folder, recipe.validation_share, side == "validation")
        # each rank renders all for itself, in as long as one would
        cache = context.folder / "examples" / f"{side}{context.rank or ''}.arrow"
        sides.append(_dataset(cache, rows, recipe, encoder, date, count))
        counts[side] = vars(count)
    if not counts["train"]["supervised_tokens"]:
        if recipe.method != "sft":
            raise Refused(
                f"Nothing of {context.spec.job.dataset} is learned: of its {counts['train']['rows']} training rows none "
                f"could be used with max_length {recipe.max_length}. Add rows, or raise max_length, or lower "
                f"validation_share (now {recipe.validation_share:g}) if all rows are kept for validation."
            )
        raise Refused(
            f"Not one token of {context.spec.job.dataset} is supervised under the policy {recipe.supervise!r}: all "
            f"{counts['train']['rows']} training rows lack what it learns, or were cut before it at max_length "
            f"{recipe.max_length}. Look at the data set's token view, then change supervise or max_length."
        )
    return sides[0], sides[1], counts


def _side(folder: Path, share: float, validation: bool) -> Iterator[dict[str, Any]]:
    return (row for row in stream(folder) if is_validation(row, share) is validation)


def _dataset(
    cache: Path, rows: Iterator[dict[str, Any]], recipe: Recipe, encoder: Encoder, date: str, count: Counts
) -> Dataset:
    """Render into an Arrow file under `cache`, so that a large data set needs little memory."""

    def generate() -> Iterator[dict[str, list[int]]]:
        for row in rows:
            count.rows += 1
            try:
                found = row_examples(
                    row,
                    encoder=encoder,
                    date=date,
                    policy=recipe.supervise,
                    effort=row.get("reasoning_effort") or recipe.reasoning_effort,
                    max_length=recipe.max_length,
                )
            except HarmonyError as error:
                count.unrendered.append(f"row {count.rows}: {error}")
                continue
            for parts in [found] if recipe.method == "dpo" else [[example] for example in found]:
                count.truncated += any(example.truncated for example in parts)
                if not all(example.supervised for example in parts):
                    count.without_supervised += 1
                    continue
                count.examples += 1
                count.tokens += sum(len(example.ids) for example in parts)
                count.longest = max(count.longest, *(len(example.ids) for example in parts))
                count.supervised_tokens += sum(example.supervised for example in parts)
                yield preferences.columns(*parts) if recipe.method == "dpo" else _columns(*parts)

    cache.parent.mkdir(parents=True, exist_ok=True)
    features = preferences.FEATURES if recipe.method == "dpo" else FEATURES
    with ArrowWriter(path=str(cache), features=features) as writer:
        for example in generate():
            writer.write(example)
        writer.finalize()
    return Dataset.from_file(str(cache))


def _columns(example: Example) -> dict[str, list[int]]:
    return {"input_ids": example.ids, "labels": example.labels}


def today() -> str:
    """The date that a prompt names, UTC."""
    return datetime.now(UTC).date().isoformat()
