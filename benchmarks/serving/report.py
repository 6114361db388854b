"""serving.json and serving.md: what was measured, put beside its baseline or beside what is asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import rows

JSON = rows.FOLDER / "serving.json"
HEAD = """# Serving gpt-oss-20b

Made by `python -m benchmarks.serving`. The weights are random and of the real shapes: speed and memory depend on the shapes.
Ours is `python -m services.inference` as it is delivered, asked over HTTP by processes of their own, with streams of server-sent
events; adapters are enabled, and 128 requests answered at once. Bare is vLLM's `LLM` in Python, with its engine in a process of
its own or in the same one, whichever is faster, and llama.cpp its own `llama-batched-bench`, on the same GPU, one after the
other. Prompts are 128 random tokens, new each time, answers 128, greedy. Tokens a second are those of all streams together after
the first of each: what answers of 128 tokens take longer than answers of one, the medians of five rounds after warm ones.

"""
Measured = dict[str, dict[str, Any]]  # by name: {"value", "device", "date"}


@dataclass(frozen=True)
class Row:
    """What stands in a row: the names of two measurements, or of one and what is asked for in its place."""

    name: str
    ours: str
    baseline: str | float
    unit: str
    method: str


def _rows() -> Iterator[Row]:
    for streams, least in {1: 0.95, 8: 0.95, 32: 0.95, 128: 0.90}.items():
        told = f"{streams} at a time, against bare vLLM without adapters; asked: at least {least}"
        yield Row(f"streams_{streams}", f"ours_{streams}", f"bare_{streams}", "tokens/s", told)
    for streams, least in {1: 1.0, 8: 1.7, 32: 2.8, 128: 3.3}.items():
        told = f"{streams} at a time, against llama.cpp; asked: at least {least}"
        yield Row(f"llama_{streams}", f"ours_{streams}", f"llama_{streams}", "tokens/s", told)
    told = "32 at a time over 8 adapters of rank 16, experts included, against bare vLLM untuned; asked: at least 1.25"
    yield Row("adapters_8", "ours_adapters_8", "bare_adapters_8", "tokens/s", told)
    told = "32 at a time, whole answers: with nginx and a key, against without, in turns; asked: at least 0.97"
    yield Row("through_nginx", "ours_nginx", "ours_direct", "tokens/s", told)
    yield Row("ttft_ms", "ours_ttft_ms", 60, "ms", "first token after a prompt of 1,000, one stream; baseline: at most")
    told = "the GPU's memory with settings as they come, 32,768 tokens of KV cache, 8 adapters; baseline: at most"
    yield Row("resident_gib", "ours_resident_gib", 20, "GiB", told)
    told = "process start until /health says ok, the second start with these settings; baseline: at most"
    yield Row("start_s", "ours_start_s", 75, "s", told)
    yield Row(
        "health_ms", "ours_health_ms", 50, "ms", "99th percentile of /health, 128 streams at work; baseline: at most"
    )
    told = (
        "an adapter through bare vLLM, against transformers and PEFT in fp32: cosine of centred logits of the next token, median "
        "of 16 prompts; baseline: against the base without it; the two bases: {base_cosine:.4f}; asked: at least 0.99"
    )
    yield Row("adapter_cosine", "adapter_cosine", "adapter_without_cosine", "cosine", told)
    told = "the same; baseline: against PEFT with the adapter's attention alone, its experts left out"
    yield Row("experts_cosine", "adapter_cosine", "adapter_attention_cosine", "cosine", told)
    told = (
        "that adapter through our API: how far the log-probabilities of the 20 likeliest next tokens are from PEFT's, median of 16 "
        "prompts; baseline: from the base's; the two bases: {base_nats:.4f}"
    )
    yield Row("adapter_nats", "adapter_nats", "adapter_without_nats", "nats", told)


def found(measured: Measured) -> Iterator[dict[str, Any]]:
    """The rows of which everything has been measured."""
    values = {name: one["value"] for name, one in measured.items()}
    for row in _rows():
        baseline = values.get(row.baseline) if isinstance(row.baseline, str) else row.baseline
        if row.ours in values and baseline is not None:
            yield {
                "name": row.name,
                "ours": shown(values[row.ours]),
                "baseline": shown(baseline),
                "ratio": shown(values[row.ours] / baseline),
                "unit": row.unit,
                "device": measured[row.ours]["device"],
                "date": measured[row.ours]["date"],
                "method": row.method.format_map(values),
            }


def shown(value: float) -> float:
    """With five digits that count."""
    return float(f"{value:.5g}")


def write(measured: Measured) -> None:
    """Put the rows into serving.json in place of earlier ones of their names, and write serving.md anew."""
    for row in found(measured):
        rows.keep(JSON, row)
    JSON.with_suffix(".md").write_text(HEAD + rows.table(rows.read(JSON)))
