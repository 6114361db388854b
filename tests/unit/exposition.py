"""An exposition as its tests read it."""

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, dict[tuple[str, ...], float]]


def parse(text: str) -> Samples:
    """Samples by name and by the values of their labels, which stand in the order of the labels' names."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        found.setdefault(family.name, {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found
