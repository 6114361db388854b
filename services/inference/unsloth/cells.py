"""The cells of the cache: one holds the keys and values of one token, in every layer. Sequences that begin alike share them."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Read:
    """Tokens that have been read with the weights of a hash, and their cells."""

    sha256: str
    tokens: Sequence[int]
    cells: array


class Cells:
    """Who holds which cell. What an ended sequence has read is kept until the room is needed, the oldest going first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = list(range(count))
        self.holders = [0] * count
        self.kept: list[Read] = []

    def take(self, count: int) -> list[int]:
        """Free cells; there is `room` for them."""
        cells = [self.free.pop() for _ in range(count)]
        self.hold(cells)
        return cells

    def room(self, count: int) -> bool:
        """Whether `count` cells are free, or can be by forgetting what is kept."""
        while len(self.free) < count and self.kept:
            self.give_back(self.kept.pop(0).cells)
        return len(self.free) >= count

    def hold(self, cells: Iterable[int]) -> None:
        for cell in cells:
            self.holders[cell] += 1

    def give_back(self, cells: Iterable[int]) -> None:
        for cell in cells:
            self.holders[cell] -= 1
            if not self.holders[cell]:
                self.free.append(cell)

    def keep(self, read: Read) -> None:
        """Take over the cells of a sequence that has ended. What others hold as well is not kept a second time."""
        if any(self.holders[cell] == 1 for cell in read.cells):
            self.kept.append(read)
        else:
            self.give_back(read.cells)

    def shared(self, sha256: str, tokens: Sequence[int], running: Iterable[Read]) -> array:
        """Hold the cells of the longest beginning of `tokens` that has been read with the same weights, all but the last
        token: to know what follows, one must be read."""
        length, found, wanted = 0, None, tokens[:-1]
        for read in (*self.kept, *running):
            if read.sha256 == sha256 and (common := _common(read.tokens, wanted)) > length:
                length, found = common, read
        if found is None:
            return array("q")
        if found in self.kept:  # used last
            self.kept.remove(found)
            self.kept.append(found)
        cells = found.cells[:length]
        self.hold(cells)
        return cells


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
