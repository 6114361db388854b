"""vLLM's worker with our kernels for adapters: `worker_cls="services.inference.vllm.worker.Worker"`."""

from vllm.v1.worker import gpu_worker

from services.inference.vllm import lora


class Worker(gpu_worker.Worker):
    def init_device(self) -> None:
        lora.install()
        super().init_device()
