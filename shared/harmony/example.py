"""A conversation becomes training examples: token ids, and labels that say which of them are learned.

A turn is one assistant message. What the model generates in it is everything after `<|start|>assistant`: thinking,
preambles, tool calls, the answer, and the tokens between and after them. The policy says what of it is learned:

- `analysis+final`: everything generated, each turn once. A turn whose thinking the history drops is not learned in that
  rendering, for it would teach to skip thinking; it is learned in an example that ends with it.
- `final`: one example; of every turn the final channel from `<|channel|>` to the stop, never the analysis.
- `last_turn`: one example; what is generated in the last turn.

Each example ends with a turn, and what precedes that turn is exactly the prompt that `render(..., generate=True)` gives
for it. This differs from the template's own training rendering in one case: thinking of tool calls stays in the context
of the answer that follows them, as it does when the model is served. Messages after the last turn are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from shared.harmony.encoder import END, RETURN, Encoder
from shared.harmony.render import HarmonyError, Piece, assemble, checked, kept_thinking, thinking

Policy = Literal["analysis+final", "final", "last_turn"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence.

    `ids`, `labels` and `owners` have the same length. `labels` is not shifted, as transformers expects: it equals `ids`
    where the model is to learn and `IGNORED` (-100) elsewhere. There is one exception: an answer in the history ends
    with `<|end|>` but was generated with `<|return|>`, so where it is learned the label is `<|return|>` (200002) while
    the id stays `<|end|>` (200007).
    `owners[i]` is the index into `pieces` of what token i comes from. `truncated` says that max_length cut the end.
    """

    ids: list[int]
    labels: list[int]
    owners: list[int]
    pieces: list[Piece]
    truncated: bool

    @property
    def supervised(self) -> int:
        """Number of tokens that are learned."""
        return len(self.labels) - self.labels.count(IGNORED)


def examples(
    conversation: Mapping[str, Any],
    *,
    encoder: Encoder,
    date: str,
    policy: Policy = "analysis+final",
    effort: str | None = None,
    max_length: int | None = None,
) -> list[Example]:
    """Render and mask a conversation for training; the module says what each policy learns.

    Args:
        date: `YYYY-MM-DD`, for the system message.
        effort: see `render`.
        max_length: tokens; a longer example loses its end.

    Returns:
        The examples, in the order of the turns that end them, including those with nothing left to learn.

    Raises:
        HarmonyError: unknown policy, or no rendering exists.
    """
    if policy not in POLICIES:
        raise HarmonyError(f"The policy {policy!r} is unknown: use {', '.join(POLICIES)}.")
    messages = checked(conversation)
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    made: list[Example] = []
    open_turns = set(turns)
    while open_turns or not made:
        last = max(open_turns, default=len(messages) - 1)
        shown = {**conversation, "messages": messages[: last + 1]}
        keep = kept_thinking(messages[:last], generate=True) | {last}
        pieces = assemble(shown, date=date, effort=effort, generate=False, keep=keep)
        if policy == "analysis+final":
            learned = {i for i in open_turns if i in keep or thinking(messages[i]) is None}
        else:
            learned = set(turns) if policy == "final" else {last}.intersection(turns)
        made.append(_example(pieces, _supervised(pieces, learned, policy), encoder, max_length))
        open_turns = open_turns - learned if policy == "analysis+final" else set()
    return made[::-1]


def _supervised(pieces: list[Piece], learned: set[int], policy: Policy) -> list[bool]:
    """Which pieces the model generates in the turns `learned` (message indices) and the policy wants."""
    wanted: list[bool] = []
    prompt = 0  # pieces of `<|start|>assistant` still to come that the server writes, not the model
    for previous, piece in zip([None, *pieces], pieces, strict=False):
        if piece.text == "<|start|>" and piece.kind == "special":
            opens = previous is None or previous.message != piece.message or previous.text == "<|call|>"
            prompt = 2 if opens or policy == "final" else 0
        mine = piece.role == "assistant" and piece.message in learned and prompt == 0
        wanted.append(mine and (policy != "final" or piece.channel == "final"))
        prompt = max(prompt - 1, 0)
    return wanted


def _example(pieces: list[Piece], wanted: list[bool], encoder: Encoder, max_length: int | None) -> Example:
    ids, owners = encoder.align(pieces)
    labels = [token if wanted[owner] else IGNORED for token, owner in zip(ids, owners, strict=True)]
    for place, owner in enumerate(owners):
        if labels[place] == END and pieces[owner].channel == "final":
            labels[place] = RETURN
    cut = len(ids) if max_length is None else max_length
    return Example(ids[:cut], labels[:cut], owners[:cut], pieces, truncated=len(ids) > cut)
