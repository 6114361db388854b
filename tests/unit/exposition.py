"""An exposition as its tests read it, and an inference server over an engine of theirs."""

from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from services.inference.app import create_app
from services.inference.residence import Base
from shared.gpus import Glance
from shared.harmony import Encoder
from shared.settings import Settings

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


def inference(settings: Settings, encoder: Encoder | None, engine: Any, gguf: Any = None) -> FastAPI:
    """The inference server with `engine` for everything, or with `gguf` for exports."""
    base = Base(settings.data, encoder, "5ha")  # type: ignore[arg-type]  # without an encoder nothing is asked
    always = {"told": lambda: {"status": "ok"}, "base": lambda: base}
    there = SimpleNamespace(name=engine.name, generate=getattr(engine, "generate", None), **always)
    return create_app(settings, there, gguf or engine, Glance())
