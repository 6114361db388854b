"""Start the inference server: `python -m services.inference --host 127.0.0.1 --port 8000`."""

import argparse
import time
from pathlib import Path

import uvicorn

from shared import hub, logs
from shared import settings as environment
from shared.settings import Settings
from shared.store import NotFound

WAIT_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    values = parser.parse_args()
    logs.to_stdout("inference")
    settings = environment.load()
    folder = _wait_for_base(settings)

    from services.inference.app import create_app
    from services.inference.engine import UnslothEngine
    from services.inference.gguf import LlamaEngine

    encoder = hub.encoder(folder)
    engine = UnslothEngine(folder, settings.context_tokens)
    app = create_app(settings, encoder, engine, LlamaEngine(settings.llama_url, encoder), hub.weights_sha256(folder))
    uvicorn.run(
        app, host=values.host, port=values.port, log_config=None, access_log=False, timeout_graceful_shutdown=10
    )


def _wait_for_base(settings: Settings) -> Path:
    """The base model's snapshot, as soon as somebody has fetched it; until then a sentence says what is awaited."""
    said = False
    while True:
        try:
            return hub.snapshot(settings.base_model, "main", settings.hf_home)
        except NotFound as missing:
            if not said:
                print(missing, flush=True)
                said = True
            time.sleep(WAIT_SECONDS)


if __name__ == "__main__":
    main()
