"""Start the inference server: `python -m services.inference --host 127.0.0.1 --port 8000`."""

import argparse
import json
import logging
from collections.abc import Callable

import torch
import uvicorn

from services.inference.app import create_app
from services.inference.choice import choose, installed
from services.inference.door import Door, Server
from services.inference.gguf import LlamaEngine
from services.inference.residence import Base, Loaded, Residence
from services.inference.unsloth.engine import UnslothEngine
from services.inference.vllm.engine import VllmEngine
from services.inference.vllm.room import Needs, card
from shared import hub, logs, workers
from shared import settings as environment
from shared.gpus import Glance
from shared.settings import Settings
from shared.store import Store

logger = logging.getLogger(__name__)
LAST_SECONDS = 5  # for what goes on after TANDEM_DRAIN_SECONDS to notice that it was cut off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    values = parser.parse_args()
    logs.to_stdout("inference")
    serve(environment.load(), Glance(), values.host, values.port)


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
    door = Door(create_app(settings, residence, gguf, glance))
    config = uvicorn.Config(
        door, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=LAST_SECONDS
    )
    Server(config, door, settings.drain_seconds).run()


def _base(settings: Settings) -> Base:
    """The base model in the cache. Raises NotFound."""
    folder = hub.snapshot(settings.base_model, "main", settings.hf_home)
    return Base(folder, hub.encoder(folder), hub.weights_sha256(folder))


def _load(base: Base, settings: Settings, say: Callable[[str], None]) -> Loaded:
    """The engine that is chosen, with the base model in memory. Raises Impossible."""
    config = json.loads((base.folder / "config.json").read_text())
    found = card()
    needed = Needs(base.folder, settings, gpus=found.count if found else 1).least
    choice = choose(settings.engine, config, installed=installed(), card=found, needed=needed)
    logger.info("%s answers. %s", choice.engine, choice.why)
    made = VllmEngine(base.folder, settings, say) if choice.engine == "vllm" else UnslothEngine(base.folder, settings)
    made.why = choice.why
    return made


if __name__ == "__main__":
    main()
