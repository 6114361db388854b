"""vLLM behind the seam: its scheduler, paged cache, prefix cache, CUDA graphs and LoRA kernels, in processes of its own."""
