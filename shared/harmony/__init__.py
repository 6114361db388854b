"""Harmony is gpt-oss's chat format: conversations become tokens, generated tokens become messages.

Source of the format: https://cookbook.openai.com/articles/openai-harmony and the chat template shipped with
openai/gpt-oss-20b, which `render` reproduces byte for byte.
"""

from shared.harmony.encoder import GENERATION_STOPS, Encoder
from shared.harmony.example import IGNORED, POLICIES, Example, examples
from shared.harmony.label import Label, labels
from shared.harmony.parse import Delta, Parser
from shared.harmony.render import CHANNELS, EFFORTS, HarmonyError, Piece, render
from shared.harmony.row import length, row_examples

__all__ = [
    "CHANNELS",
    "EFFORTS",
    "GENERATION_STOPS",
    "IGNORED",
    "POLICIES",
    "Delta",
    "Encoder",
    "Example",
    "HarmonyError",
    "Label",
    "Parser",
    "Piece",
    "examples",
    "labels",
    "length",
    "render",
    "row_examples",
]
