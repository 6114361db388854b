"""A canonical row of any kind becomes training examples: a conversation, a preference, or plain text."""

from collections.abc import Mapping
from typing import Any

from shared.harmony.encoder import Encoder
from shared.harmony.example import IGNORED, Example, Policy, examples
from shared.harmony.render import Piece, render


def row_examples(
    row: Mapping[str, Any],
    *,
    encoder: Encoder,
    date: str,
    policy: Policy = "analysis+final",
    effort: str | None = None,
    max_length: int | None = None,
) -> list[Example]:
    """Render and mask a row for training.

    - A conversation: see `examples`, also for the arguments.
    - A preference: two examples, chosen and rejected, each the prompt and all that is generated in its answer, thinking
      included. They begin with the same tokens, of which none is learned.
    - A text: as many examples of at most `max_length` tokens as it fills, in its order, `<|endoftext|>` at the end of its
      document. Nothing foretells the first token of an example, so that one is not learned.

    Raises:
        HarmonyError: unknown policy, or no rendering exists.
    """
    if "text" in row:
        return _text(row, encoder, max_length)
    if "chosen" in row:
        given = {"encoder": encoder, "date": date, "effort": effort, "max_length": max_length}
        sides = ({**row, "messages": [*row["messages"], row[side]]} for side in ("chosen", "rejected"))
        return [example for side in sides for example in examples(side, policy="last_turn", **given)]
    return examples(row, encoder=encoder, date=date, policy=policy, effort=effort, max_length=max_length)


def length(row: Mapping[str, Any], encoder: Encoder, date: str) -> int:
    """Tokens of a row as it is rendered; of a preference those with the longer answer. Raises what `render` raises."""
    if "messages" in row and "chosen" not in row:
        return len(encoder.encode(render(row, date=date)))
    return max(len(example.ids) for example in row_examples(row, encoder=encoder, date=date))


def _text(row: Mapping[str, Any], encoder: Encoder, max_length: int | None) -> list[Example]:
    pieces = [Piece(row["text"], "text", None, "content", None)]
    if not row.get("continues"):
        pieces.append(Piece("<|endoftext|>", "text", None, "special", None))
    ids, owners = encoder.align(pieces)
    size = max_length or len(ids)
    parts = (slice(start, start + size) for start in range(0, len(ids), size))
    return [Example(ids[p], [IGNORED, *ids[p][1:]], owners[p], pieces, truncated=False) for p in parts]
