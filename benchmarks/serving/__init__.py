"""How fast gpt-oss is served: the product's own server over HTTP, beside bare vLLM and llama.cpp on the same GPU.

python -m benchmarks.serving CHECKPOINT

CHECKPOINT is a folder with a gpt-oss in MXFP4 and its tokenizer. What it says does not count, so random weights of the real
shape will do. vLLM has to be installed; llama.cpp's CUDA build and nginx are needed for the rows that name them.
"""
