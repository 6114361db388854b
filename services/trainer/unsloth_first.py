"""Import this before transformers, trl and peft: Unsloth patches them as it is imported.

And before any thread of torch's exists: a confident model's softmax over 201,088 tokens is mostly denormal numbers, which
a CPU computes four times slower than zeros, and only threads that start later take the setting over.
"""

import torch

torch.set_flush_denormal(True)

import unsloth  # noqa: E402, F401
