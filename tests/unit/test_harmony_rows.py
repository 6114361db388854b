"""What is learned of a preference and of plain text, token by token."""

from shared.harmony import IGNORED, Encoder, length, render, row_examples
from tests.unit.test_harmony import DATE, answer, call, result, user
from tests.unit.test_harmony_examples import learned

PAIR = {"messages": [user("a"), answer("A", "old"), user("b")], "chosen": answer("B", "new"), "rejected": answer("C")}


def test_both_sides_of_a_pair_begin_with_the_prompt_that_is_served(encoder: Encoder) -> None:
    chosen, rejected = row_examples(PAIR, encoder=encoder, date=DATE)
    prompt = encoder.encode(render(PAIR, date=DATE, generate=True))
    for side in (chosen, rejected):
        assert side.ids[: len(prompt)] == prompt and set(side.labels[: len(prompt)]) == {IGNORED}
    assert "old" not in encoder.decode(chosen.ids)


def test_of_a_pair_each_answer_is_compared_whole_and_with_its_thinking(encoder: Encoder) -> None:
    chosen, rejected = row_examples(PAIR, encoder=encoder, date=DATE)
    assert learned(chosen, encoder) == (
        "~<|channel|>analysis<|message|>new<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>"
    )
    assert learned(rejected, encoder) == "~<|channel|>final<|message|>C<|return|>"


def test_a_tool_call_can_be_preferred(encoder: Encoder) -> None:
    pair = {"messages": [user("Weather?")], "chosen": call("weather", {}), "rejected": answer("No idea.")}
    chosen, _ = row_examples(pair, encoder=encoder, date=DATE)
    assert learned(chosen, encoder).endswith("{}<|call|>")
    told = {
        "messages": [user("Weather?"), call("weather", {}), result("12")],
        "chosen": answer("12"),
        "rejected": answer("13"),
    }
    assert "<|call|>" in encoder.decode(row_examples(told, encoder=encoder, date=DATE)[1].ids)


def test_the_length_of_a_pair_is_that_of_its_longer_side(encoder: Encoder) -> None:
    sides = [len(example.ids) for example in row_examples(PAIR, encoder=encoder, date=DATE)]
    assert length(PAIR, encoder, DATE) == max(sides) and sides[0] > sides[1]


def test_of_a_text_every_token_but_the_first_is_learned(encoder: Encoder) -> None:
    (example,) = row_examples({"text": "The <|end|> is near."}, encoder=encoder, date=DATE)
    assert encoder.decode(example.ids) == "The <|end|> is near.<|endoftext|>"
    assert example.labels == [IGNORED, *example.ids[1:]] and 200007 not in example.ids


def test_a_long_text_is_parted_and_nothing_of_it_is_lost(encoder: Encoder) -> None:
    row = {"text": "one two three four five six seven eight nine ten"}
    (whole,) = row_examples(row, encoder=encoder, date=DATE)
    parts = row_examples(row, encoder=encoder, date=DATE, max_length=4)
    assert [token for part in parts for token in part.ids] == whole.ids
    assert {len(part.ids) for part in parts[:-1]} == {4} and not any(part.truncated for part in parts)
    assert all(part.labels[0] == IGNORED for part in parts)


def test_a_document_that_goes_on_does_not_end(encoder: Encoder) -> None:
    (example,) = row_examples({"text": "One\n\n", "continues": True}, encoder=encoder, date=DATE)
    assert encoder.decode(example.ids) == "One\n\n"
