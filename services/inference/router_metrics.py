"""What the router counts, and the expositions of the servers behind it as one: each sample with the label `replica`."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from services.inference.replicas import Replica
from shared.metrics import exposition, gauge

REGISTRY = CollectorRegistry()
ATTEMPTS = Counter(
    "tandem_replica_attempts",
    "Requests that the router has passed on, by what came of it.",
    ["replica", "outcome"],
    registry=REGISTRY,
)


def exposition_of(replicas: Sequence[Replica], texts: Sequence[str]) -> bytes:
    """The router's own metrics, and those of the `replicas`, whose expositions are `texts`."""
    found: dict[str, Metric] = {}
    for replica, text in zip(replicas, texts, strict=True):
        for family in text_string_to_metric_families(text):
            merged = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.add_sample(sample.name, {**sample.labels, "replica": replica.name}, sample.value)
    ready = {replica.name: float(replica.ready) for replica in replicas}
    busy = {replica.name: float(replica.busy) for replica in replicas}
    own = [
        gauge("replica_ready", "1 if the inference server can answer for base and adapters.", ready, "replica"),
        gauge("replica_requests", "Requests that the inference server has in hand.", busy, "replica"),
    ]
    return exposition([*REGISTRY.collect(), *own, *found.values()])
