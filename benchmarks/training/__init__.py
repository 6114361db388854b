"""Training speed and memory, as ratios to bare Unsloth and to the plain recipe that people begin with.

    python -m benchmarks.training overhead packing memory      the parts to measure; --help lists them

Needs a GPU and the base models in the Hugging Face cache (HF_HOME). Each measurement is a process of its own, and what is
compared is measured in the same call. Rows go to benchmarks/results/training.json, the tables to training.md beside it.
"""
