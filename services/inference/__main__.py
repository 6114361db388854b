"""Start the inference server: `python -m services.inference --host 127.0.0.1 --port 8000`."""

import json
import logging
from collections.abc import Callable

import torch

from services.inference.app import create_app
from services.inference.choice import choose, installed
from services.inference.door import Server, address
from services.inference.gguf import LlamaEngine
from services.inference.residence import Base, Loaded, Residence
from services.inference.unsloth.engine import UnslothEngine
from services.inference.vllm.engine import VllmEngine
from services.inference.vllm.room import card
from services.inference.vllm.start import needs
from shared import hub, logs, workers
from shared import settings as environment
from shared.gpus import Glance
from shared.settings import Settings
from shared.store import Store

logger = logging.getLogger(__name__)


def main() -> None:
    host, port = address(__doc__)
    logs.to_stdout("inference")
    serve(environment.load(), Glance(), host, port)


def serve(settings: Settings, glance: Glance, host: str, port: int) -> None:
    """Answer from the first moment on; the model comes when there is one, and when its GPU is free."""
    torch.set_flush_denormal(True)  # before there are threads, which take it over: denormal numbers are slow on a CPU
    mine = {gpu["uuid"] for gpu in glance.look()}
    residence = Residence(
        settings.engine,
        find=lambda: _base(settings),
        load=lambda base: _load(base, settings, residence.say),
        holder=lambda: workers.holder(settings, Store(settings.data), mine),
    )
    gguf = LlamaEngine(settings.llama_url, lambda: residence.base().encoder)
    residence.start()
    Server(create_app(settings, residence, gguf, glance), host, port, settings.drain_seconds).run()


def _base(settings: Settings) -> Base:
    """The base model in the cache. Raises NotFound."""
    folder = hub.snapshot(settings.base_model, "main", settings.hf_home)
    return Base(folder, hub.encoder(folder), hub.weights_sha256(folder))


def _load(base: Base, settings: Settings, say: Callable[[str], None]) -> Loaded:
    """The engine that is chosen, with the base model in memory. Raises Impossible."""
    config = json.loads((base.folder / "config.json").read_text())
    found = card()
    needed = needs(base.folder, settings, found).least
    choice = choose(settings.engine, config, installed=installed(), card=found, needed=needed)
    logger.info("%s answers. %s", choice.engine, choice.why)
    made = VllmEngine(base.folder, settings, say) if choice.engine == "vllm" else UnslothEngine(base.folder, settings)
    made.why = choice.why
    return made


if __name__ == "__main__":
    main()
