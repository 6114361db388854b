"""Stop strings: where an answer is cut, found while it streams."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from shared.harmony import Delta


class StopStrings:
    """Text goes through `feed` and comes out as far as it cannot be the beginning of a stop.

    The stop that is complete first ends the text, which is cut where that stop begins; of several that are complete at the
    same character, the longest. How the text is cut into pieces changes nothing.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.found: str | None = None
        self._beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be sent now. Nothing comes after a stop was `found`."""
        if self.found is not None:
            return ""
        held = self._held + text
        ends = [(held.index(stop) + len(stop), -len(stop), stop) for stop in self.stops if stop in held]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return held[: end - len(self.found)]
        lengths = range(min(self._longest, len(held)), 0, -1)
        keep = next((n for n in lengths if held[len(held) - n :] in self._beginnings), 0)
        ready, self._held = held[: len(held) - keep], held[len(held) - keep :]
        return ready

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


class ContentStops:
    """Stop strings over a message as it is parsed: they end its content; thinking and tool calls pass untouched."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._strings = StopStrings(stops)
        self._last = Delta("final")

    @property
    def found(self) -> str | None:
        """The stop that ended the content; the engine can be stopped then."""
        return self._strings.found

    def feed(self, deltas: Iterable[Delta]) -> list[Delta]:
        """The deltas to send in place of these."""
        if not self._strings.stops:
            return list(deltas)
        ready: list[Delta] = []
        for delta in deltas:
            if self.found is not None:
                break
            if delta.channel == "analysis" or delta.recipient is not None:
                ready += [*self.finish(), delta]
            else:
                self._last = delta
                ready += self._content(self._strings.feed(delta.text))
        return ready

    def finish(self) -> list[Delta]:
        """What was held back, when the content is over."""
        return self._content(self._strings.finish())

    def _content(self, text: str) -> list[Delta]:
        if not text:
            return []
        return [self._last if text == self._last.text else replace(self._last, text=text)]
