"""Which GGML type an encoding gives each tensor of gpt-oss, as llama.cpp's `src/llama-quant.cpp` chooses.

Its rules for eight experts (Mixtral's) and for importance matrices are left out: gpt-oss has 32 or 128 experts.
"""

from dataclasses import dataclass

import gguf
from gguf import GGMLQuantizationType as GGMLType
from gguf import LlamaFileType

FILE_TYPES = {
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "MXFP4": LlamaFileType.MOSTLY_MXFP4_MOE,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "Q5_K_M": LlamaFileType.MOSTLY_Q5_K_M,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
    "Q4_K_S": LlamaFileType.MOSTLY_Q4_K_S,
}
K_QUANTS = {"Q6_K": GGMLType.Q6_K, "Q5_K_M": GGMLType.Q5_K, "Q4_K_M": GGMLType.Q4_K, "Q4_K_S": GGMLType.Q4_K}
# K-quants have blocks of 256. Rows that do not divide by that, as gpt-oss's of 2,880, take a type with blocks of 32.
FALLBACKS = {GGMLType.Q4_K: GGMLType.Q5_0, GGMLType.Q5_K: GGMLType.Q5_1, GGMLType.Q6_K: GGMLType.Q8_0}
UNQUANTIZED = ("_norm.weight", "attn_sinks.weight", "ffn_gate_inp.weight")


@dataclass(frozen=True)
class Mixture:
    """The types of a model with `layers` layers in `encoding`, one of FILE_TYPES."""

    encoding: str
    layers: int

    def types(self, name: str, width: int) -> tuple[GGMLType, GGMLType]:
        """(type, type asked for) of the tensor `name` with rows of `width`; they differ where the rows do not divide."""
        if not name.endswith(".weight") or name.endswith(UNQUANTIZED):
            return GGMLType.F32, GGMLType.F32
        asked = self._asked(name)
        choices = (asked, FALLBACKS.get(asked, asked), GGMLType.F16)
        return next(kind for kind in choices if width % gguf.GGML_QUANT_SIZES[kind][0] == 0), asked

    def _asked(self, name: str) -> GGMLType:
        if self.encoding == "MXFP4":
            return GGMLType.MXFP4 if "_exps." in name else GGMLType.Q8_0
        if self.encoding not in K_QUANTS:
            return GGMLType[self.encoding]
        if name == "output.weight":
            return GGMLType.Q6_K
        if ".attn_v." in name or ".ffn_down_exps." in name:
            return self._sensitive(name)
        return K_QUANTS[self.encoding]

    def _sensitive(self, name: str) -> GGMLType:
        """The tensors in which a mixture spends more bits, in some of the layers."""
        layer, eighth = int(name.split(".")[1]), self.layers // 8
        ends = layer < eighth or layer >= 7 * self.layers // 8
        if self.encoding.endswith("_M") and (ends or (layer - eighth) % 3 == 2):
            return GGMLType.Q6_K
        if self.encoding.endswith("_S") and layer < (4 if ".attn_v." in name else eighth):
            return GGMLType.Q5_K
        return K_QUANTS[self.encoding]
