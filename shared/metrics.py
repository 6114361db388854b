"""What the expositions of all services share: their form, and the GPUs.

Names begin with `tandem_` and end with their base unit; a label has few values, never a run, a key or a person.
"""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as MEDIA_TYPE
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

__all__ = ["MEDIA_TYPE", "exposition", "gauge", "gpus"]
disable_created_metrics()  # a second series for each counter, which nothing here asks for


def exposition(families: Iterable[Metric]) -> bytes:
    """The text that Prometheus reads."""
    return generate_latest(SimpleNamespace(collect=lambda: families))  # type: ignore[arg-type]  # all that it asks of a registry


def gauge(name: str, text: str, value: float | dict[str, float] | None, label: str | None = None) -> Metric:
    """A value, without a sample where it is None; with a `label`, a value for each of the label's."""
    family = GaugeMetricFamily(f"tandem_{name}", text, labels=[label] if label else [])
    for key, number in value.items() if isinstance(value, dict) else [(None, value)]:
        if number is not None:
            family.add_metric([key] if key is not None else [], number)
    return family


def gpus(seen: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Metric]:
    """Memory in bytes and use of each GPU, given as (service that sees it, what `shared.gpus.gpus` tells)."""
    seen = list(seen)
    for name, text, key, scale in (
        ("gpu_memory_used_bytes", "GPU memory in use.", "memory_used", 1),
        ("gpu_memory_total_bytes", "GPU memory in all.", "memory_total", 1),
        ("gpu_utilization_ratio", "Share of the time in which the GPU computed.", "use_percent", 0.01),
    ):
        family = GaugeMetricFamily(f"tandem_{name}", text, labels=["uuid", "service"])
        for service, gpu in seen:
            if gpu.get(key) is not None:  # not every GPU tells everything
                family.add_metric([gpu["uuid"], service], gpu[key] * scale)
        yield family
