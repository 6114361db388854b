"""Keys and values of all sequences, in tensors of their own: a pass writes what it reads into its cells and sees the rest."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Piece:
    """What a pass reads of one sequence: its newest tokens, and the cells of all its tokens up to the last of these."""

    tokens: list[int]
    cells: array


class Cache:
    """The cells' contents: `keys` and `values` by layer, each (cells, heads, head size)."""

    def __init__(self, config: Any, cells: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (cells, config.num_key_value_heads, config.head_dim)
        self.layer_types: list[str] = config.layer_types
        self.windows = {"full_attention": None, "sliding_attention": config.sliding_window}
        self.keys, self.values = (
            [torch.zeros(shape, dtype=dtype, device=device) for _ in self.layer_types] for _ in range(2)
        )


class View:
    """One pass over pieces, in the place of transformers' cache.

    Rows are padded on the left, so that the last column is each row's newest token, among queries and keys alike. Padding
    is read as token 0 at position 0; nothing sees it and it is written nowhere."""

    layers: tuple = ()  # some callers look for transformers' own

    def __init__(self, cache: Cache, pieces: list[Piece]) -> None:
        self.cache, self.dtype, device = cache, cache.keys[0].dtype, cache.keys[0].device
        cells, counts = [piece.cells for piece in pieces], np.array([[len(piece.tokens)] for piece in pieces])
        ends, width = np.array([[len(row)] for row in cells]), int(counts.max())
        real = np.arange(width) >= width - counts
        positions = ends - width + np.arange(width)

        def put(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        self.tokens = put(_on_the_right([piece.tokens for piece in pieces], width))
        self.positions = put(np.where(real, positions, 0))
        self.read = put(real.reshape(-1).nonzero()[0])  # the queries that are no padding, and where they are written
        self.written = put(_on_the_right(cells, width)[real])
        self.seen: dict[str, torch.Tensor] = {}  # by kind of layer, the cells of each row (rows, keys)
        self.masks: dict[str, torch.Tensor] = {}  # and what each query sees of them (rows, 1, queries, keys)
        for kind, window in cache.windows.items():
            span = min(int(ends.max()), window + width - 1) if window else int(ends.max())
            at = ends - span + np.arange(span)
            distance = positions[:, :, None] - at[:, None, :]
            visible = (distance >= 0) & (distance < (window or np.inf)) & (at >= 0)[:, None] & real[:, :, None]
            mask = torch.zeros(visible.shape, dtype=self.dtype, device=device)
            self.masks[kind] = mask.masked_fill_(put(~visible), torch.finfo(self.dtype).min)[:, None]
            self.seen[kind] = put(_on_the_right(cells, span))

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values (rows, heads, queries, head size); returns all (rows, heads, keys, head size)."""
        seen = self.seen[self.cache.layer_types[layer]]
        found = []
        for new, cells in ((keys, self.cache.keys[layer]), (values, self.cache.values[layer])):
            cells[self.written] = new.transpose(1, 2).flatten(0, 1)[self.read].to(self.dtype)
            found.append(cells[seen].transpose(1, 2))
        return found[0], found[1]

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions and masks are given, so nobody counts from here."""
        return 0


def _on_the_right(rows: list[Any], width: int) -> np.ndarray:
    """The last `width` numbers of each row, or all of them after zeros: (rows, width), int64."""
    table = np.zeros((len(rows), width), dtype=np.int64)
    for line, row in zip(table, rows, strict=True):
        count = min(len(row), width)
        if count:
            line[-count:] = row[-count:]
    return table
