"""A stop string cuts a stream where it cuts the whole text, however the text arrives."""

from hypothesis import given
from hypothesis import strategies as st

from services.inference.stops import ContentStops, StopStrings
from shared.harmony import Delta


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The reference: read the whole text a character at a time until it ends with a stop."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


LETTERS = st.text("ab\n", max_size=30)


@given(pieces=st.lists(LETTERS, max_size=8), stops=st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4))
def test_a_stream_is_cut_where_the_whole_text_is(pieces: list[str], stops: list[str]) -> None:
    strings = StopStrings(stops)
    sent = "".join(strings.feed(piece) for piece in pieces) + strings.finish()
    assert (sent, strings.found) == cut("".join(pieces), stops)


@given(pieces=st.lists(LETTERS, max_size=8), stops=st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4))
def test_nothing_is_held_back_that_cannot_become_a_stop(pieces: list[str], stops: list[str]) -> None:
    strings, text, sent = StopStrings(stops), "", ""
    for piece in pieces:
        text += piece
        sent += strings.feed(piece)
        if strings.found is None:
            held = text[len(sent) :]
            assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_text_that_only_begins_like_a_stop_is_sent_when_it_turns_out() -> None:
    strings = StopStrings(["END"])
    assert [strings.feed(text) for text in ("a E", "N", "ough E")] == ["a ", "", "ENough "]
    assert strings.finish() == "E" and strings.found is None


def test_after_a_stop_nothing_comes() -> None:
    strings = StopStrings(["."])
    assert strings.feed("One. Two.") == "One" and strings.found == "."
    assert strings.feed(" Three.") == strings.finish() == ""


def test_only_the_content_is_searched_for_stops() -> None:
    stops = ContentStops(["STOP"])
    thought, call = Delta("analysis", "do not STOP"), Delta("commentary", recipient="f", arguments="STOP", index=0)
    assert stops.feed([thought, call]) == [thought, call]
    assert stops.feed([Delta("final", "on S"), Delta("final", "TO"), Delta("final", "P here")]) == [
        Delta("final", "on ")
    ]
    assert stops.found == "STOP" and stops.feed([Delta("final", "more")]) == stops.finish() == []


def test_what_was_held_back_comes_before_what_is_not_content() -> None:
    stops = ContentStops(["STOP"])
    call = Delta("commentary", recipient="f", index=0)
    assert stops.feed([Delta("commentary", "Wait ST"), call]) == [
        Delta("commentary", "Wait "),
        Delta("commentary", "ST"),
        call,
    ]
