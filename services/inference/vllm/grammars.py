"""Our grammars within vLLM's process: they begin anywhere in an answer, and know harmony's tokens by their ids.

vLLM's own backends begin at the first token that is generated, and forbid a stop token as long as the grammar goes on,
which `<|call|>` ends. So vLLM is given a backend of ours; its place for that is the function that makes the scheduler.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from vllm.v1.structured_output.backend_types import StructuredOutputBackend, StructuredOutputGrammar

from services.inference.constraint import Constraint, vocabulary
from shared import hub

BEGUN = re.compile(r"// begun:([ \d]*)\n")  # a comment to the grammar
ANYTHING = -1  # all bits of a word


def written(grammar: str, begun: Sequence[int]) -> str:
    """The grammar of an answer that has begun with these ids, as `Grammars` reads it."""
    return f"// begun: {' '.join(map(str, begun))}\n{grammar}"


def scheduler(**known: Any) -> Any:
    """vLLM's own scheduler, after its manager of grammars has been given ours."""
    config = known["vllm_config"]
    config.scheduler_config.scheduler_cls = None
    model = config.model_config
    vocabulary(hub.encoder(Path(model.model)))  # some seconds, and not within the first answer that needs it
    known["structured_output_manager"].backend = Grammars(config, model.tokenizer, model.get_vocab_size())
    return config.scheduler_config.get_scheduler_cls()(**known)


class Grammars(StructuredOutputBackend):
    """Makes grammars of what `written` wrote."""

    def compile_grammar(self, request_type: Any, grammar_spec: str, **_: Any) -> StructuredOutputGrammar:
        """Raises ValueError for a grammar that cannot be, or that what has begun does not follow."""
        encoder = hub.encoder(Path(self.vllm_config.model_config.model))
        constraint = Constraint(encoder, grammar_spec)
        for token in (BEGUN.match(grammar_spec) or ["", ""])[1].split():
            constraint.advance(int(token))
        return Grammar(constraint)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """(sequences, words of 32 tokens)."""
        return torch.full((max_num_seqs, -(-self.vocab_size // 32)), ANYTHING, dtype=torch.int32)

    def destroy(self) -> None:
        """Nothing to end."""


class Grammar(StructuredOutputGrammar):
    """One answer's, as vLLM drives it. One that can go no further ends the answer with an error."""

    def __init__(self, constraint: Constraint) -> None:
        self.constraint, self.stuck = constraint, False

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Set the bits of the tokens that may come next."""
        try:
            allowed = torch.frombuffer(bytearray(self.constraint.allowed()), dtype=torch.int32)
        except ValueError:
            self.stuck = True  # raised here, it would end the whole engine
            bitmask[batch_index] = ANYTHING
            return
        row = bitmask[batch_index]
        row.zero_()
        row[: len(allowed)] = allowed[: len(row)]

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Go on after `tokens`; False ends the request with an error."""
        try:
            for token in tokens:
                self.constraint.advance(token)
        except ValueError:
            self.stuck = True
        return not self.stuck

    def is_terminated(self) -> bool:
        """Never: when all is said, `<|return|>` is the one token that may come."""
        return False

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """For speculative decoding, which is off."""
        raise NotImplementedError

    def rollback(self, num_tokens: int) -> None:
        """For speculative decoding, which is off."""
        raise NotImplementedError

    def reset(self) -> None:
        """Nobody asks for it."""
        raise NotImplementedError
