"""vLLM's worker with our kernels for adapters and our sizes of experts: `worker_cls="services.inference.vllm.worker.Worker"`."""

from vllm.v1.worker import gpu_worker

from services.inference.vllm import experts, lora


class Worker(gpu_worker.Worker):
    def init_device(self) -> None:
        lora.install()
        experts.install()
        super().init_device()
