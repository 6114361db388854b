"""ggml's own quantisation of rows, from the library that llama.cpp's wheel carries: what llama-quantize calls, too.

`ggml_quantize_chunk` (ggml's `ggml.h`) takes any number of whole rows, so that a tensor is encoded a piece at a time.
"""

import ctypes
import functools
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GGMLType


def quantize(rows: np.ndarray, kind: GGMLType) -> np.ndarray:
    """The bytes of `rows` [n, width], finite float32, as `kind`: uint8 [n, bytes of a row], without an importance matrix.

    Raises ValueError when `width` does not divide into the blocks of `kind`."""
    rows = np.ascontiguousarray(rows, np.float32)
    count, width = rows.shape
    encoded = np.empty(gguf.quant_shape_to_byte_shape(rows.shape, kind), np.uint8)
    written = _quantize_chunk()(int(kind), rows.ctypes.data, encoded.ctypes.data, 0, count, width, None)
    if written != encoded.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes of {kind.name}, and {encoded.nbytes} were announced")
    return encoded


@functools.cache
def _quantize_chunk() -> Any:
    import xllamacpp.xllamacpp as wheel

    function = ctypes.CDLL(wheel.__file__).ggml_quantize_chunk
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    function.restype = ctypes.c_size_t
    return function
