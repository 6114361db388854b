"""Import this before transformers, trl and peft: Unsloth patches them as it is imported.

And before any thread of torch's exists: a confident model's softmax over 201,088 tokens is mostly denormal numbers, which
a CPU computes four times slower than zeros, and only threads that start later take the setting over.
"""

import os

import torch

from shared.memory import LOGITS

# The loss works on a part of the logits at a time. Left to itself it makes that part as large as the memory that is free when
# it first runs, so that the peak would be another one on each card.
os.environ.setdefault("UNSLOTH_CE_LOSS_TARGET_GB", str(LOGITS / 2**30))

torch.set_flush_denormal(True)

import unsloth  # noqa: E402, F401
