"""vLLM where there is a GPU for it: its scheduler, paged cache, CUDA graphs and LoRA kernels, behind our API."""
