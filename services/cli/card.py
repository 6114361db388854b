"""Cards in a terminal: what is in a data set, which of its tokens are learned, what an adapter and an export are."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from services.cli import show

CHANNELS = {"analysis": "yellow", "commentary": "magenta", "final": "green"}


def dataset(item: Mapping[str, Any]) -> None:
    """The card of a data set: rows, tokens, languages and reasoning."""
    rows, reasoning, tokens = item["rows"], item["reasoning"], item.get("tokens")
    counts = [f"{rows['accepted']:,} accepted"]
    text = item.get("kind") == "text"
    counts += [f"{rows[kind]:,} {kind}" for kind in ("rejected", "duplicate") if rows.get(kind)]
    efforts = ", ".join(f"{name} {count:,}" for name, count in reasoning["by_effort"].items())
    show.out.print(show.safe(item["reference"]), style="bold")
    show.facts(
        {
            "kind": item.get("kind"),
            "rows": ", ".join(counts),
            "turns": None if text else f"{item['turns']['mean']:g} on average, at most {item['turns']['max']}",
            "tokens": tokens
            and f"{tokens['total']:,} in all, {tokens['mean']:,.0f} on average, at most {tokens['max']:,}",
            "reasoning": None
            if text
            else f"{show.share(reasoning['share'])} of the rows" + (f" (effort: {efforts})" if efforts else ""),
            "thinks in": _shares(reasoning["languages"]),
            "languages": _shares(item["languages"]),
            "tools": f"{item['tools']:,} rows" if item["tools"] else None,
            "validation": f"{item['splits']['validation']:,} rows are kept out of training at 10 %",
            "from": f"{item['source']} ({item['format']})",
            "licence": item.get("licence"),
            "size": show.size(item["bytes"]),
            "added": show.age(item["created"]),
        }
    )
    for warning, count in item.get("warnings", {}).items():
        show.out.print(f"! {count:,} {show.safe(warning)}", style="yellow")
    if rows.get("rejected"):
        show.out.print(
            f"! See why rows were rejected: tandem datasets rejected {show.safe(item['reference'])}", style="yellow"
        )
    if tokens:
        show.out.print("\ntokens in a row", style="dim")
        histogram(tokens["histogram"]["edges"], tokens["histogram"]["counts"])


def histogram(edges: list[int], counts: list[int]) -> None:
    """A bar for each bin between the first and the last that is not empty."""
    filled = [index for index, count in enumerate(counts) if count]
    if not filled:
        return
    bins = range(filled[0], filled[-1] + 1)
    total = sum(counts)
    labels = [f"{edges[i]:,}–{edges[i + 1] - 1:,}" if i + 1 < len(edges) else f"{edges[i]:,} or more" for i in bins]
    show.bars(labels, [counts[i] for i in bins], [f"{counts[i]:,} ({show.share(counts[i] / total)})" for i in bins])


def tokens(made: Mapping[str, Any]) -> None:
    """The tokens of a row; what is learned is reversed in its channel's colour, or between » and « without colours."""
    colours = show.out.color_system is not None and show.out.is_terminal
    for number, example in enumerate(made["examples"], 1):
        cut = ", cut at the end" if example["truncated"] else ""
        show.out.print(
            f"row {made['row']}, example {number} of {len(made['examples'])}: {example['supervised']:,} of "
            f"{example['total']:,} tokens are learned ({made['policy']}){cut}",
            style="bold",
        )
        show.out.print(_stretches(example["tokens"], colours), soft_wrap=not colours)
    legend = Text("learned: ", style="dim")
    for channel, colour in CHANNELS.items():
        legend.append(f" {channel} ", style=f"reverse {colour}").append(" ")
    show.out.print(legend if colours else "What stands between » and « is learned.")


def _stretches(items: list[Mapping[str, Any]], colours: bool) -> Text:
    text, before = Text(), False
    for token in items:
        learned = bool(token["supervised"])
        if not colours and learned != before:
            text.append("»" if learned else "«")
        before = learned
        style = f"reverse {CHANNELS.get(token.get('channel') or '', 'blue')}" if learned else "dim"
        text.append(show.safe(token["text"]), style=style)
    return text.append("" if colours or not before else "«")


def adapter(item: Mapping[str, Any]) -> None:
    """The card of an adapter: where it comes from, what it cost, what was proven of it."""
    show.out.print(show.safe(item["reference"]), style="bold")
    values = item.get("values") or {}
    show.facts(
        {
            "loss": f"{show.loss(item['loss_first'])} → {show.loss(item['loss_last'])} in {item['steps']:,} steps",
            "validation": show.loss(item.get("validation_loss")),
            "data set": item["dataset"],
            "recipe": f"{item['recipe']} (rank {values.get('lora_rank')}, learning rate {values.get('learning_rate')})",
            "base model": f"{item['base_model']} at {item['base_revision'][:12]}",
            "aliases": names(item.get("aliases")),
            "exports": names(item.get("exports")),
            "size": show.size(item["bytes"]),
            "sha256": item["sha256"],
            "run": item["run"],
            "made": show.age(item["created"]),
        }
    )
    if item.get("proof"):
        show.out.print("\nproof", style="dim")
        show.facts(show.flat(item["proof"]))


def export(item: Mapping[str, Any]) -> None:
    """The card of an export: what it is, how well it agrees with its adapter, how fast llama.cpp is with it."""
    parity = item["parity"]
    speed = parity.get("speed")
    tensors = ", ".join(f"{total['count']:,} {kind}" for kind, total in item["tensors"].items())
    show.out.print(show.safe(item["file"]), style="bold")
    show.facts(
        {
            "adapter": item["adapter"],
            "encoding": f"{item['encoding']}, {item['bits_per_weight']:.2f} bits a weight",
            "tensors": tensors,
            "fell back": f"{show.share(item['fallback_share'])} of the weights" if item["fallbacks"] else None,
            "size": show.size(item["bytes"]),
            "top-1": f"{show.share(parity['top1'])} of {parity['tokens']:,} tokens" if parity else None,
            "cosine": show.number(parity.get("cosine"), 4),
            "KL": f"{show.number(parity.get('kl'), 4)} nats",
            "speed": speed
            and f"{speed['prompt']:,.0f} tokens/s read, {speed['decode']:,.0f} tokens/s answered, {speed['device']}",
            "compared on": parity.get("base") and f"the base as {parity['base']}",
            "aliases": names(item.get("aliases")),
            "sha256": item["sha256"],
            "base model": f"{item['base_model']} at {item['base_revision'][:12]}",
            "run": item["run"],
            "made": show.age(item["created"]),
        }
    )


def names(items: Any) -> str:
    """Names of aliases or exports, given as text or as objects."""
    return ", ".join(i if isinstance(i, str) else i.get("alias") or i.get("file") or "" for i in items or [])


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {show.share(value)}" for name, value in list(shares.items())[:6])
