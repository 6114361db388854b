"""Who is read next: sequences join in the order of their arrival, and each that speaks has a token in every step."""

from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from services.inference import metrics
from services.inference.constraint import Constraint
from services.inference.engine import Busy, Sampling, Token, Unfit, Weights
from services.inference.unsloth.cells import Cells, Read

PIECE_TOKENS = 512  # of prompts in one step: what the others' next token may have to wait for


@dataclass(eq=False)
class Sequence:
    """A request in the engine: what has been said so far, and how much of it has been read."""

    prompt: list[int]
    sampling: Sampling
    weights: Weights
    send: Callable[[Token | Exception | None], None]  # None is the end
    constraint: Constraint | None = None  # of what may be said next
    left: bool = False  # nobody waits for it any more
    read: int = 0
    cells: array = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.random = Random(self.sampling.seed)

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.read

    @property
    def complete(self) -> bool:
        """Whether its answer has ended."""
        said = len(self.tokens) - len(self.prompt)
        return said > 0 and (self.tokens[-1] in self.sampling.stops or said >= self.sampling.max_tokens)

    def so_far(self) -> Read:
        return Read(self.weights.sha256, self.tokens[: self.read], self.cells[: self.read])


class Schedule:
    """The sequences that wait, those that run, and the cells that they hold."""

    def __init__(self, cells: Cells, most_running: int, most_waiting: int) -> None:
        self.cells, self.most_running, self.most_waiting = cells, most_running, most_waiting
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order of their arrival

    def add(self, sequence: Sequence) -> None:
        """Put at the end of those that wait. Raises Busy; may be called from any thread."""
        places = self.most_running - len(self.running)
        if len(self.waiting) >= self.most_waiting + places:
            raise Busy(self.most_waiting)
        self.waiting.append(sequence)

    def drop_those_that_left(self) -> None:
        for sequence in [s for s in self.running if s.left]:
            self.end(sequence)
        for sequence in [s for s in self.waiting.copy() if s.left]:
            self.waiting.remove(sequence)

    def join(self, ready: Callable[[Sequence], bool]) -> None:
        """Let those that wait run, the first one first, while there is room and its weights are `ready`, which raises Unfit
        where they never will be. None overtakes."""
        while self.waiting and len(self.running) < self.most_running:
            first = self.waiting[0]
            try:
                if not ready(first) or not self._place(first):
                    return
                self.running.append(first)
            except Unfit as error:
                first.send(error)
            self.waiting.popleft()

    def _place(self, sequence: Sequence) -> bool:
        """Cells for all its tokens and a next one, and one more for each that runs."""
        cells = self.cells.shared(sequence.weights.sha256, sequence.tokens, (s.so_far() for s in self.running))
        missing = len(sequence.tokens) - len(cells)
        if not self.cells.room(missing + 1 + len(self.running)):
            self.cells.give_back(cells)
            return False
        metrics.PREFIX_QUERIES.inc(len(sequence.tokens))
        metrics.PREFIX_HITS.inc(len(cells))
        sequence.read = len(cells)
        sequence.cells = cells
        sequence.cells.extend(self.cells.take(missing))
        return True

    def speaking(self) -> Iterator[list[Sequence]]:
        """Those that have one token to read, of the same weights together; each has its cell."""
        self._give_cells()
        groups: dict[str, list[Sequence]] = {}
        for sequence in self.running:
            if sequence.unread == 1:
                groups.setdefault(sequence.weights.sha256, []).append(sequence)
        yield from groups.values()

    def reading(self) -> list[tuple[Sequence, int]]:
        """Those whose prompts are read next, of the same weights, and how many tokens of each; the first one first."""
        chosen: list[tuple[Sequence, int]] = []
        widest = 0
        for sequence in (s for s in self.running if s.unread > 1):
            count = min(sequence.unread, PIECE_TOKENS)
            if chosen and sequence.weights.sha256 != chosen[0][0].weights.sha256:
                continue
            widest = max(widest, count)
            if chosen and widest * (len(chosen) + 1) > PIECE_TOKENS:  # rows are padded to the widest
                break
            chosen.append((sequence, count))
        return chosen

    def end(self, sequence: Sequence) -> None:
        """Take it out; what it has read may serve others."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)

    def use(self) -> float:
        """The share of the cells that running sequences hold."""
        return len({cell for sequence in list(self.running) for cell in sequence.cells}) / self.cells.count

    def _give_cells(self) -> None:
        """A cell for each next token. Where there is none left, the youngest goes back to those that wait."""
        for sequence in list(self.running):
            while sequence in self.running and len(sequence.cells) < len(sequence.tokens):
                if self.cells.room(1):
                    sequence.cells.extend(self.cells.take(1))
                else:
                    youngest = self.running.pop()
                    self._release(youngest)
                    self.waiting.appendleft(youngest)

    def _release(self, sequence: Sequence) -> None:
        self.cells.give_back(sequence.cells[sequence.read :])
        self.cells.keep(sequence.so_far())
        sequence.read, sequence.cells = 0, array("q")
