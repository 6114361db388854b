"""What a viewer says of tokens: role and channel of each, whatever the model has produced."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.harmony import Encoder, Piece, labels
from shared.harmony.encoder import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START


def ids(encoder: Encoder, *parts: int | str) -> list[int]:
    text = [encoder.encode([Piece(p, "", None, "content", None)]) if isinstance(p, str) else [p] for p in parts]
    return [id_ for group in text for id_ in group]


def said(encoder: Encoder, *parts: int | str) -> list[tuple[str, str | None, str]]:
    """(role, channel, kind) as they change along the tokens."""
    found = [(label.role, label.channel, label.kind) for label in labels(ids(encoder, *parts), encoder)]
    return [label for place, label in enumerate(found) if place == 0 or found[place - 1] != label]


def test_an_answer_begins_with_the_assistants_channel(encoder: Encoder) -> None:
    found = said(
        encoder, CHANNEL, "analysis", MESSAGE, "So.", END, START, "assistant", CHANNEL, "final", MESSAGE, "Yes."
    )
    assert [(role, channel) for role, channel, kind in found if kind == "content"] == [
        ("assistant", "analysis"),
        ("assistant", "final"),
    ]


def test_a_tool_call_has_its_recipient_in_the_header(encoder: Encoder) -> None:
    call = (CHANNEL, "commentary to=functions.price ", CONSTRAIN, "json", MESSAGE, '{"of": "chain"}', CALL)
    assert said(encoder, *call)[-2:] == [("assistant", "commentary", "content"), ("assistant", "commentary", "special")]


def test_a_tool_answers_in_its_own_role(encoder: Encoder) -> None:
    tool = (START, "functions.price to=assistant", CHANNEL, "commentary", MESSAGE, "35", END)
    assert {(role, channel) for role, channel, _ in said(encoder, *tool)} == {("functions.price", "commentary")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([START, CHANNEL, MESSAGE, END, RETURN, CONSTRAIN]) | st.integers(0, 201_087), max_size=30)
)
def test_each_token_has_one_label_whatever_comes(encoder: Encoder, tokens: list[int]) -> None:
    found = labels(tokens, encoder)
    assert len(found) == len(tokens)
    assert all(
        (label.kind == "special") == (id_ in encoder.special_ids) for id_, label in zip(tokens, found, strict=True)
    )
