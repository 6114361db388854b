"""One step after the other: each sequence that speaks says a token, and a piece of the prompts is read."""

import logging
from typing import Any

import torch

from services.inference import metrics
from services.inference.engine import Unavailable
from services.inference.unsloth.adapters import Adapters
from services.inference.unsloth.cache import Cache, Piece, View
from services.inference.unsloth.cells import Cells
from services.inference.unsloth.draw import draw
from services.inference.unsloth.schedule import Schedule, Sequence

logger = logging.getLogger(__name__)


class Batch:
    """The model and the sequences that it answers. `step` is for one thread; `schedule.add` for any."""

    def __init__(self, model: Any, cells: int, most_running: int, most_waiting: int, kept_adapters: int) -> None:
        """`model` is a gpt-oss of transformers, patched by Unsloth or not. `cells` is at least the longest sequence."""
        self.adapters = Adapters(model, kept_adapters)
        self.cache = Cache(model.config, cells, model.dtype, model.device)
        self.schedule = schedule = Schedule(Cells(cells), most_running, most_waiting)
        metrics.WAITING.set_function(lambda: len(schedule.waiting))  # not of self: it would keep the model in memory
        metrics.CACHE_USE.set_function(schedule.use)

    @torch.inference_mode()
    def step(self) -> bool:
        """Give each sequence that speaks its next token, and read on in prompts. False when there was nothing to do."""
        schedule = self.schedule
        schedule.drop_those_that_left()
        schedule.join(self._ready)
        worked = False
        for group in schedule.speaking():
            self._pass([(sequence, 1) for sequence in group])
            worked = True
        if chosen := schedule.reading():
            self._pass(chosen)
            worked = True
        return worked

    def fail(self, error: Exception) -> None:
        """End all sequences, those that wait as well, with `error`."""
        schedule = self.schedule
        while schedule.waiting:
            schedule.waiting.popleft().send(error)
        for sequence in list(schedule.running):
            self._end(sequence, error)

    def _ready(self, sequence: Sequence) -> bool:
        in_use = {other.weights.sha256 for other in self.schedule.running}
        with torch.inference_mode(False):
            return self.adapters.ready(sequence.weights, in_use)

    def _pass(self, rows: list[tuple[Sequence, int]]) -> None:
        """Read `count` tokens of each of the sequences, which have the same weights; draw for those read to the end."""
        try:
            logits = self._logits(rows)
            for sequence, count in rows:
                sequence.read += count
            at = [row for row, (sequence, _) in enumerate(rows) if not sequence.unread]
            if at:
                self._say([rows[row][0] for row in at], logits if len(at) == len(rows) else logits[at])
        except Exception:  # of these sequences, perhaps for memory; the others go on
            logger.exception("a pass over %d sequences failed", len(rows))
            error = Unavailable("The model could not go on with this answer; the server's log says why. Try again.")
            for sequence, _ in rows:
                self._end(sequence, error)

    def _logits(self, rows: list[tuple[Sequence, int]]) -> torch.Tensor:
        """What may follow the last token read of each row: (rows, vocabulary), fp32."""
        self.adapters.put_on(rows[0][0].weights)
        view = View(
            self.cache,
            [Piece(s.tokens[s.read : s.read + count], s.cells[: s.read + count]) for s, count in rows],
        )
        out = self.adapters.model(
            input_ids=view.tokens,
            attention_mask=view.masks,
            position_ids=view.positions,
            past_key_values=view,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def _say(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        allowed = {sequence: self._allowed(sequence) for sequence in sequences}
        rows = [row for row, sequence in enumerate(sequences) if sequence in self.schedule.running]
        if not rows:
            return
        if len(rows) < len(sequences):
            sequences, logits = [sequences[row] for row in rows], logits[rows]
        asked = [(sequence.sampling, sequence.random) for sequence in sequences]
        said = draw(logits, asked, [allowed[sequence] for sequence in sequences])
        for sequence, token in zip(sequences, said, strict=True):
            sequence.tokens.append(token.id)
            if sequence.constraint:
                sequence.constraint.advance(token.id)
            sequence.send(token)
            if sequence.complete:
                self._end(sequence, None)

    def _allowed(self, sequence: Sequence) -> bytes | None:
        """What may be said next, None where all may. A sequence whose grammar is beyond what can be followed is ended."""
        try:
            return sequence.constraint.allowed() if sequence.constraint else None
        except ValueError as error:
            self._end(sequence, Unavailable(str(error)))
            return None

    def _end(self, sequence: Sequence, how: Exception | None) -> None:
        self.schedule.end(sequence)
        sequence.send(how)
