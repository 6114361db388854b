"""Generated tokens become messages as they arrive; whatever is malformed becomes text, never an error."""

import codecs
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.harmony.encoder import CALL, CHANNEL, CONSTRAIN, END, ENDOFTEXT, MESSAGE, RETURN, START, Encoder
from shared.harmony.render import CHANNELS, Channel

_BETWEEN_MESSAGES = "\n\n"

_NAMES = rb"(?:\s*to=(?P<%b>[\w.:/-]+))*"
_CHANNEL = rb"(?P<channel>analysis|commentary|final)"
_TYPE = rb"(?:\s*(?:json|code|text|python)(?=\s*(?:$|[{\[\"]|t(?:o?$|o=))))?"
# `assistant to=functions.x`; also a channel that lost its <|channel|>
_BEFORE_CHANNEL = re.compile(
    rb"\s*(?P<role>(?:assistant)+|user|system|developer|tool|functions\.[\w.:/-]+)?"
    + (_NAMES % b"to" + rb"(?:\s*" + _CHANNEL + rb"(?=\s*(?:json\s*)?$))?" + _TYPE)
)
# `commentary json`, `commentary to=functions.x json`; also a doubled channel, and names after the type
_AFTER_CHANNEL = re.compile(rb"\s*(?:" + _CHANNEL + rb"(?P=channel)*)?" + _NAMES % b"to" + _TYPE + _NAMES % b"late")
_AFTER_CONSTRAIN = re.compile(_TYPE + _NAMES % b"to")
_ONE_WORD = re.compile(rb"[\w.:/=-]{1,64}")
_HEADER_WORDS = (b"assistant", b"analysis", b"commentary", b"final", b"to=", b"functions.", b"json")
_CHANNELS: dict[bytes, Channel] = {name.encode(): name for name in CHANNELS}
_LONGEST_HEADER = 512  # bytes; a stream of blanks or of one endless name is no header
_NOT_TOOLS = ("assistant", "user", "all")


@dataclass(frozen=True, slots=True)
class Delta:
    """What one token added.

    Text on a channel: `text`. Or a part of a tool call: `recipient` is the function's name (without "functions."),
    `index` the call's number in the message, `arguments` the added characters; the first delta of a call adds none.
    """

    channel: Channel
    text: str = ""
    recipient: str | None = None
    arguments: str = ""
    index: int | None = None


@dataclass(slots=True)
class _Reading:
    """What a header says, and the bytes of it that say nothing."""

    channel: Channel | None
    recipient: str | None
    foreign: bool  # a role other than assistant: the model speaks for someone else
    rest: bytes


@dataclass(slots=True)
class _Header:
    """Bytes collected before <|message|>, by the marker they follow."""

    started: bool = False
    before: bytes = b""
    after: bytes | None = None
    constrain: bytes | None = None
    recipient: str | None = None
    resume: "_Segment | None" = None

    def add(self, data: bytes) -> None:
        if self.constrain is not None:
            self.constrain += data
        elif self.after is not None:
            self.after += data
        else:
            self.before += data

    def read(self) -> _Reading:
        before = _BEFORE_CHANNEL.match(self.before)
        after = _AFTER_CHANNEL.match(self.after or b"")
        constrain = _AFTER_CONSTRAIN.match(self.constrain or b"")
        assert before and after and constrain  # each can match nothing
        channel = after["channel"] or before["channel"]
        to = constrain["to"] or after["late"] or after["to"] or before["to"]
        recipient = to.decode().removeprefix("functions.") if to else self.recipient
        return _Reading(
            channel=_CHANNELS.get(channel),
            recipient=None if recipient in _NOT_TOOLS else recipient,
            foreign=bool(before["role"]) and not before["role"].startswith(b"assistant"),
            rest=before.string[before.end() :] + after.string[after.end() :] + constrain.string[constrain.end() :],
        )

    @property
    def marked(self) -> bool:
        """Whether something other than its words says that this is a header."""
        markers = self.started or self.after is not None or self.constrain is not None
        return markers or self.recipient is not None or b"to=functions." in self.before

    @property
    def broken(self) -> bool:
        """Whether no header can begin like this, so that it is text whose <|message|> is missing."""
        rest = self.read().rest.strip()
        if sum(map(len, (self.before, self.after or b"", self.constrain or b""))) > _LONGEST_HEADER:
            return True
        if not rest:
            return False
        return not _ONE_WORD.fullmatch(rest) if self.marked else not _begins_word(rest)


@dataclass(slots=True)
class _Segment:
    """Where text goes at the moment."""

    channel: Channel
    call: int | None = None
    empty: bool = True


@dataclass(slots=True)
class _Call:
    name: str
    arguments: list[str] = field(default_factory=list)


class Parser:
    """Incremental parser of what gpt-oss generates after the prompt's `<|start|>assistant`.

    Nothing raises, whatever the ids. Special tokens never become text. Text that has no channel is final; words of a
    header that mean nothing, and messages in another role, go to analysis; a channel without `<|message|>` still names
    the channel of its text. Several messages on a channel are set apart by an empty line, which the deltas contain.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._header: _Header | None = _Header()
        self._segment: _Segment | None = None
        self._stop: int | None = None
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[_Call] = []
        self._deltas: list[Delta] = []

    @property
    def stopped(self) -> bool:
        """True after `<|return|>`, `<|call|>` or `<|endoftext|>`, never after an intermediate `<|end|>`."""
        return self._stop is not None

    @property
    def writing(self) -> Literal["reasoning", "content", "tool_calls"] | None:
        """Which part of `message()` the next text goes to; None in a header, between messages and after the stop."""
        if self._header is not None or self._segment is None:
            return None
        if self._segment.call is not None:
            return "tool_calls"
        return "reasoning" if self._segment.channel == "analysis" else "content"

    def feed(self, token_id: int) -> list[Delta]:
        """Take one generated token; after a stop, tokens are ignored."""
        if self.stopped:
            return []
        if token_id in (RETURN, CALL, ENDOFTEXT):
            self._close()
            self._stop = token_id
        elif token_id in (START, END):
            self._close()
            self._header = _Header(started=token_id == START)
        elif token_id == CHANNEL:
            self._open_channel()
        elif token_id == MESSAGE:
            self._open_message()
        elif token_id == CONSTRAIN:
            if self._header and self._header.constrain is None:
                self._header.constrain = b""
        elif token_id not in self._encoder.special_ids:
            self._add(self._encoder.token_bytes(token_id))
        return self._taken()

    def finish(self) -> list[Delta]:
        """Close a stream that ended without a stop token, and give what was held back. Harmless to repeat."""
        self._close()
        return self._taken()

    def message(self) -> dict[str, Any]:
        """The whole message so far: content, reasoning, tool_calls, finish_reason.

        `content` joins the final channel and preambles on commentary; `reasoning` is the analysis. A tool call is
        `{"type": "function", "function": {"name": str, "arguments": str}}`, its arguments as generated, valid JSON or
        not. `finish_reason` is OpenAI's: "length" without a stop token, else "tool_calls" or "stop".
        """
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": "".join(call.arguments)}}
            for call in self._calls
        ]
        reason = "length" if not self.stopped else "tool_calls" if calls else "stop"
        return {
            "content": "".join(self._content),
            "reasoning": "".join(self._reasoning),
            "tool_calls": calls,
            "finish_reason": reason,
        }

    def _add(self, data: bytes) -> None:
        if self._header is None:
            self._write(data)
            return
        self._header.add(data)
        if self._header.broken:
            self._abandon_header(closing=False)

    def _open_channel(self) -> None:
        header = self._header
        if header is None:  # the end of the message before is missing
            self._write(b"", final=True)
            self._header = _Header(after=b"", resume=self._segment)
        elif header.after is None and header.constrain is None:
            header.after = b""
        else:
            reading = header.read()
            self._note(reading.rest)
            self._header = _Header(header.started, after=b"", recipient=reading.recipient, resume=header.resume)

    def _open_message(self) -> None:
        header = self._header
        if header is None:  # doubled
            return
        reading = header.read()
        self._note(reading.rest)
        self._header = None
        if header.resume and not reading.channel and not reading.recipient and not reading.rest.strip():
            self._segment = header.resume
        else:
            self._segment = self._opened(reading, "final")

    def _abandon_header(self, *, closing: bool) -> None:
        """Go on without <|message|>: what the header does not explain is text."""
        header, self._header = self._header, None
        assert header
        reading = header.read()
        if not header.marked:
            reading = _Reading(None, None, foreign=False, rest=header.before)
        if closing and not reading.rest.strip() and not reading.recipient:
            return
        cut_off = closing and header.marked and _begins_word(reading.rest.strip())
        if header.resume and not reading.channel and not reading.recipient and not cut_off:
            self._segment = header.resume
        else:
            self._segment = self._opened(reading, "analysis" if cut_off else "final")
        self._write(reading.rest)

    def _opened(self, reading: _Reading, otherwise: Channel) -> _Segment:
        if reading.foreign:
            return _Segment("analysis")
        if not reading.recipient:
            return _Segment(reading.channel or otherwise)
        self._calls.append(_Call(reading.recipient))
        segment = _Segment(reading.channel or "commentary", call=len(self._calls) - 1)
        self._deltas.append(Delta(segment.channel, recipient=reading.recipient, index=segment.call))
        return segment

    def _note(self, rest: bytes) -> None:
        """Words of a header that mean nothing are kept as analysis."""
        if rest.strip():
            self._segment = _Segment("analysis")
            self._write(rest.strip(), final=True)

    def _close(self) -> None:
        if self._header is not None:
            self._abandon_header(closing=True)
        self._write(b"", final=True)
        self._header, self._segment = _Header(), None

    def _write(self, data: bytes, *, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        segment = self._segment
        if not text or segment is None:
            return
        if segment.call is not None:
            call = self._calls[segment.call]
            call.arguments.append(text)
            self._deltas.append(Delta(segment.channel, recipient=call.name, arguments=text, index=segment.call))
            return
        written = self._reasoning if segment.channel == "analysis" else self._content
        if segment.empty and written:
            text = _BETWEEN_MESSAGES + text
        segment.empty = False
        written.append(text)
        self._deltas.append(Delta(segment.channel, text=text))

    def _taken(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas


def _begins_word(rest: bytes) -> bool:
    return any(word.startswith(rest) for word in _HEADER_WORDS)
