"""transformers and PEFT as the judge of what an engine says: how far each token was from the likeliest one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from transformers import GptOssForCausalLM


class Judge:
    """The base of a folder, in fp32 on a CPU and in bf16 on a GPU, with or without one of its adapters."""

    def __init__(self, base: Path) -> None:
        gpu = torch.cuda.is_available()
        options = {"dtype": torch.bfloat16 if gpu else torch.float32, "device_map": "cuda" if gpu else "cpu"}
        if "quantization_config" in (base / "config.json").read_text():
            from transformers import Mxfp4Config

            options["quantization_config"] = Mxfp4Config(dequantize=True)
        self.plain = GptOssForCausalLM.from_pretrained(base, **options).eval()
        self.model: torch.nn.Module = self.plain

    @contextmanager
    def wearing(self, adapter: Path | None) -> Iterator[None]:
        """With the adapter put on."""
        if adapter is None:
            yield
            return
        tuned = PeftModel.from_pretrained(self.plain, str(adapter)).eval()
        self.model = tuned
        try:
            yield
        finally:
            self.plain = self.model = tuned.unload()

    @torch.inference_mode()
    def logprobs(self, prompt: list[int], answer: list[int]) -> torch.Tensor:
        """Of what may follow, at each place of the answer: (tokens of the answer, vocabulary), fp32."""
        device = next(self.model.parameters()).device
        logits = self.model(torch.tensor([prompt + answer], device=device)).logits[0, len(prompt) - 1 : -1]
        return logits.float().log_softmax(-1).cpu()

    def regret(self, prompt: list[int], answer: list[int]) -> float:
        """By how much the likeliest token was likelier than the one that was said, in natural logarithms, at the worst
        place: 0 for the greedy answer."""
        told = self.logprobs(prompt, answer)
        said = told.gather(1, torch.tensor(answer)[:, None])[:, 0]
        return float((told.max(-1).values - said).max())
