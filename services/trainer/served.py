"""A GGUF file asked through llama.cpp's server: by itself, or with a LoRA file on it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import chain
from pathlib import Path
from typing import Any

from services.trainer.child import Refused

LOAD_SECONDS = 600
SPEED_PROMPT, SPEED_ANSWER = 512, 32  # tokens


class Served:
    """llama.cpp's server over `model` while the block lasts, with `lora` at full strength if there is one.

    Entering raises Refused when llama.cpp cannot load them."""

    def __init__(self, model: Path, lora: Path | None = None) -> None:
        self.model, self.lora = model, lora

    def __enter__(self) -> "Served":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "shared.llama_server", str(self.model), "--port", str(port)]
        command += ["--lora", str(self.lora)] if self.lora else []
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.2)
        self.process.kill()
        file = self.lora or self.model
        raise Refused(f"llama.cpp could not load {file.name}; log.txt has what it said. It was not published.")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def read(self, prompts: list[list[int]], answers: list[list[int]], top: int) -> list[list[dict[int, float]]]:
        """At each place of each answer the `top` likeliest next tokens with their log-probabilities."""
        return [
            [self._next(prompt + answer[:place], top) for place in range(len(answer))]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def same_tokens(self, prompts: list[list[int]]) -> bool:
        """Whether the file's tokenizer turns each prompt's text into its tokens."""
        for ids in prompts:
            text = self._post("detokenize", tokens=ids)["content"]
            if self._post("tokenize", content=text, add_special=False, parse_special=True)["tokens"] != ids:
                return False
        return True

    def speed(self, prompts: list[list[int]]) -> dict[str, Any]:
        """{"prompt", "decode", "device"}: tokens a second of reading up to SPEED_PROMPT tokens and of answering."""
        ids = list(chain.from_iterable(prompts))[:SPEED_PROMPT]
        timings = self._complete(ids, n_predict=SPEED_ANSWER, ignore_eos=True, cache_prompt=False)["timings"]
        return {
            "prompt": timings["prompt_per_second"],
            "decode": timings["predicted_per_second"],
            "device": f"{len(os.sched_getaffinity(0))} CPU cores",
        }

    def _next(self, ids: list[int], top: int) -> dict[int, float]:
        answer = self._complete(ids, n_predict=1, n_probs=top, cache_prompt=True, return_tokens=True)
        found = answer.get("completion_probabilities")
        if not found:  # llama.cpp tells no probabilities of a token that ends inside a character
            return {answer["tokens"][0]: 0.0}
        return {entry["id"]: entry["logprob"] for entry in found[0]["top_logprobs"]}

    def _complete(self, ids: list[int], **options: Any) -> Any:
        if self.lora:  # without a word about it a request may get the scales of another one
            options["lora"] = [{"id": 0, "scale": 1.0}]
        return self._post("completion", prompt=ids, temperature=0, **options)

    def _post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)
