"""llama.cpp's own server over one GGUF file until SIGTERM: `python -m shared.llama_server FILE --port N`."""

import argparse
import logging
import os
import signal
import time

from shared import logs

DRAIN_SECONDS = 8.0
logger = logging.getLogger("tandem.llama")


def serve(
    path: str,
    host: str,
    port: int,
    *,
    alias: str,
    parallel: int,
    context_tokens: int,
    gpu_layers: int,
    lora: str | None,
) -> None:
    """Serve `path`, with the adapter `lora` on it if there is one, with continuous batching for `parallel` requests of
    `context_tokens` each. Does not return."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = path, {alias}
    if lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = lora, 1.0
        params.lora_adapters = [adapter]
    params.hostnames, params.port = [host], port
    params.n_parallel, params.n_ctx = parallel, parallel * context_tokens
    params.n_gpu_layers = gpu_layers
    params.cont_batching = params.endpoint_metrics = params.endpoint_slots = params.use_jinja = True
    params.special = True  # /completion shows the channel tokens, which the answer is parsed by
    params.ui, params.warmup, params.verbosity, params.sse_ping_interval = False, False, 1, 1
    params.cpuparams.poll = 0  # waiting threads sleep, so that a training process beside them has the cores
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads(len(os.sched_getaffinity(0)))
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the server's threads exist
    server = xllamacpp.Server(params)
    logger.info("serving %s at %s", os.path.basename(path), server.listening_address)
    signal.sigwait(signals)
    deadline = time.monotonic() + DRAIN_SECONDS
    while "requests_processing 0" not in server.handle_metrics() and time.monotonic() < deadline:
        time.sleep(0.1)
    os._exit(0)  # the destructor can wait for requests in flight; nothing needs saving


def threads(cores: int) -> int:
    """How many compute. They wait for each other after each operation, awake: where another process has one of their cores,
    a token can take seconds (2.2 s with 30 threads on 32 cores, beside four busy ones). More than 16 only wait for memory."""
    return min(16, cores - cores // 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default="gguf")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--context-tokens", type=int, default=4096)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--lora", help="a LoRA in GGUF")
    values = vars(parser.parse_args())
    logs.to_stdout("llama")
    serve(values.pop("file"), values.pop("host"), values.pop("port"), **values)


if __name__ == "__main__":
    main()
