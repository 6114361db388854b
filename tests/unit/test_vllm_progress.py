"""How far vLLM is while it starts, by what its processes log; and what of that is ours to print."""

import json
import logging
import logging.config
import os
import time
from pathlib import Path

import pytest

from services.inference.vllm import progress

LOG = """(EngineCore pid=7) Initializing a V1 LLM engine (v0.32.0) with config: model='/huggingface/x'
Starting to load model /huggingface/x...
Loading weights took 4.06 seconds
"""


def test_the_last_stage_counts() -> None:
    assert progress.stage("nothing yet") is None
    assert progress.stage(LOG) == "its weights are being read"
    compiled = LOG + "Model loading took 12.8 GiB memory and 5.1 seconds\nUsing cache directory: /kernels/vllm\n"
    assert "compiled" in progress.stage(compiled)
    assert "graphs" in progress.stage(compiled + "GPU KV cache size: 32,768 tokens\n")


def test_each_stage_is_said_once_and_the_lines_are_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("VLLM_LOGGING_CONFIG_PATH", "")
    said: list[str] = []
    with progress.followed(said.append):
        config = json.loads(Path(os.environ["VLLM_LOGGING_CONFIG_PATH"]).read_text())
        logging.config.dictConfig(config)  # as vLLM does in each of its processes
        logger = logging.getLogger("vllm.v1.worker")
        for message in ("Starting to load model x...", "Model loading took 12.8 GiB memory"):
            logger.info(message)
            time.sleep(0.1)
    for handler in logging.getLogger("vllm").handlers:
        handler.close()
    logging.getLogger("vllm").handlers.clear()
    assert said == [
        "the model is being loaded: its weights are being read",
        "the model is being loaded: its kernels are being compiled, which takes minutes the first time",
    ]
    line = json.loads(capfd.readouterr().out.splitlines()[0])
    assert (line["service"], line["message"]) == ("inference", "Starting to load model x...")
