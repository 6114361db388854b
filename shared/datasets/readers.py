"""A file of rows as a stream of records, whatever its kind; nothing is held but the row at hand."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.datasets.canonical import check_depth
from shared.datasets.errors import DatasetError, RowError
from shared.datasets.json_rows import json_rows
from shared.datasets.plain import sections
from shared.datasets.sniff import HEAD, UTF8_BOM, UTF16_BOMS, header_fields, sniff

MIB = 1024**2
SAVE_AS_UTF8 = "save the file as UTF-8 (in Excel: 'CSV UTF-8')"


@dataclass(frozen=True)
class Limits:
    """What a file may ask of memory and disk, in bytes."""

    max_line: int = 16 * MIB  # one row
    max_expanded: int = 32 * 1024 * MIB  # everything, once decompressed
    max_ratio: int = 200  # decompressed to compressed
    small: int = 16 * MIB  # the ratio is not looked at below this


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Record:
    """One row as it was read: a value, or a problem with the text that caused it, or a blank line."""

    line: int
    value: object = None
    problem: str | None = None
    text: str | None = None
    blank: bool = False


@dataclass
class Source:
    """A file of rows. `unit` says what `Record.line` counts: lines of the file or rows; `position` is in bytes."""

    path: Path
    filename: str
    limits: Limits = DEFAULT_LIMITS
    position: int = 0

    def __post_init__(self) -> None:
        self.kind, self.gzipped = sniff(self.path, self.filename, self.limits.max_line)
        self.size = self.path.stat().st_size
        self.unit = "line" if self.kind in ("jsonl", "csv", "text") else "row"
        self.file_format = self.kind + (".gz" if self.gzipped else "")

    def records(self) -> Iterator[Record]:
        """Yield the records in the file's order. Raises DatasetError when the file cannot be read on."""
        try:
            yield from self._parquet() if self.kind == "parquet" else self._text()
        except DatasetError as error:
            raise DatasetError(f"{self.filename} {error}") from error
        self.position = self.size

    def _text(self) -> Iterator[Record]:
        with self.path.open("rb") as raw:
            stream = io.BufferedReader(_Inflated(raw, self.size, self.limits), HEAD) if self.gzipped else raw
            if stream.peek(3)[:3] == UTF8_BOM:
                stream.read(3)
            for record in READERS[self.kind](stream, self.limits.max_line):
                self.position = raw.tell()
                yield record

    def _parquet(self) -> Iterator[Record]:
        from shared.datasets.parquet import parquet_rows  # pyarrow takes a second and 60 MB

        for line, (value, problem, done) in enumerate(parquet_rows(self.path, self.limits), 1):
            self.position = int(done * self.size)
            yield Record(line, value, problem)


class _Inflated(io.RawIOBase):
    """The content of a gzip file, which stops when it grows like a decompression bomb."""

    def __init__(self, raw: BinaryIO, size: int, limits: Limits) -> None:
        self.gzip, self.size, self.limits, self.count = gzip.GzipFile(fileobj=raw), size, limits, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            chunk = self.gzip.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(
                f"is a damaged or truncated gzip file ({error}). Compress or upload it again."
            ) from error
        self.count += len(chunk)
        check_expansion(self.count, self.size, self.limits)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def check_expansion(expanded: int, size: int, limits: Limits) -> None:
    """Raise DatasetError when `expanded` bytes are more than a file of `size` bytes may become."""
    check_total(expanded, limits)
    if expanded > limits.small and expanded > limits.max_ratio * size:
        raise DatasetError(
            f"expands to more than {limits.max_ratio} times its size, as a decompression bomb does. "
            "If it is genuine, upload it uncompressed."
        )


def check_total(expanded: int, limits: Limits) -> None:
    """Raise DatasetError when `expanded` bytes are more than any file may become."""
    if expanded > limits.max_expanded:
        raise DatasetError(f"is larger than {limits.max_expanded:,} bytes when decompressed. Split it.")


def _jsonl(stream: BinaryIO, max_line: int) -> Iterator[Record]:
    for number, (line, too_long) in enumerate(_lines(stream, max_line), 1):
        if too_long:
            yield Record(number, problem=f"it is longer than {max_line:,} bytes", text=_shown(line[:2000]))
        elif not line.strip():
            yield Record(number, blank=True)
        else:
            yield _parsed(number, line)


def _lines(stream: BinaryIO, max_line: int) -> Iterator[tuple[bytes, bool]]:
    """Yield (line, too long); of a line that is too long only the beginning, and never more than that in memory."""
    while line := stream.readline(max_line + 1):
        too_long = len(line) > max_line and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = stream.readline(HEAD)
        yield line, too_long


def _parsed(number: int, line: bytes) -> Record:
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
        check_depth(value)
        return Record(number, value, text=_shown(line[:2000]))
    except json.JSONDecodeError as error:
        problem = f"invalid JSON at column {error.colno}: {error.msg}"
    except UnicodeDecodeError as error:
        problem = _undecodable(error, line)
    except RecursionError:
        problem = "it is nested too deep"
    except ValueError as error:  # RowError, NaN, a number of thousands of digits
        problem = str(error)
    return Record(number, problem=problem, text=_shown(line[:2000]))


def _undecodable(error: UnicodeDecodeError, line: bytes) -> str:
    return f"invalid UTF-8 at byte {error.start + 1} (0x{line[error.start]:02x}); save the file as UTF-8"


def _refuse_constant(name: str) -> None:
    raise RowError(f"it holds {name}, which is not JSON")


def text_rows(stream: BinaryIO, max_line: int) -> Iterator[Record]:
    """Yield the sections of a plain text file; a line that is no UTF-8 is a problem of its own."""
    problems: list[Record] = []

    def lines() -> Iterator[tuple[int, str]]:
        for number, (line, too_long) in enumerate(_lines(stream, max_line), 1):
            try:
                if too_long:
                    raise RowError(f"it is longer than {max_line:,} bytes")
                yield number, line.decode()
            except UnicodeDecodeError as error:
                problems.append(Record(number, problem=_undecodable(error, line), text=_shown(line[:2000])))
            except RowError as error:
                problems.append(Record(number, problem=str(error), text=_shown(line[:2000])))

    for number, text, continues in sections(lines()):
        yield from problems
        problems.clear()
        yield Record(number, {"text": text} | ({"continues": True} if continues else {}), text=text[:2000])
    yield from problems


def _shown(line: bytes) -> str:
    return line.decode(errors="replace").strip()


def _json(stream: BinaryIO, max_line: int) -> Iterator[Record]:
    for number, (value, problem) in enumerate(json_rows(stream, max_line), 1):
        yield Record(number, value, problem)


def _csv(stream: BinaryIO, max_line: int) -> Iterator[Record]:
    head = stream.peek(HEAD)
    _, delimiter = header_fields(head)
    encoding, errors = ("utf-16", "replace") if head.startswith(UTF16_BOMS) else ("utf-8", "surrogateescape")
    csv.field_size_limit(max_line)  # the csv module has one limit for the process
    text = io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")
    lines = _CsvLines(text, max_line)
    try:
        yield from _csv_records(csv.reader(lines, delimiter=delimiter, strict=True), lines)
    finally:
        text.detach()


class _CsvLines:
    """Hands lines to the csv module and stops it when one row outgrows the limit, as after a quote without its end."""

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self.text, self.limit, self.since = text, limit, 0

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line = self.text.readline(self.limit + 1)
        self.since += len(line)
        if self.since > self.limit:
            raise csv.Error("field limit")
        if not line:
            raise StopIteration
        return line


def _csv_records(reader: Iterator[list[str]], lines: _CsvLines) -> Iterator[Record]:
    header: list[str] = []
    while True:
        number, lines.since = reader.line_num + 1, 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "end of data" in str(error) or "field limit" in str(error) or not header:
                raise DatasetError(
                    f"has a row from line {number} on that does not end within the file or {lines.limit:,} characters, "
                    "most often because of a quote that is not closed. Close it, or double the quotes inside the text."
                ) from error
            yield Record(number, problem=f"invalid CSV: {error}", text="")
            continue
        if cells is None:
            return
        if not header and cells:
            header = _checked(cells)
        else:
            yield _csv_record(number, cells, header)


def _undecoded(cells: list[str]) -> bool:
    """Whether some bytes of a row were no UTF-8; `surrogateescape` gives those as U+DC80 to U+DCFF."""
    return any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell)


def _checked(header: list[str]) -> list[str]:
    if _undecoded(header):
        raise DatasetError(f"has a header that is not UTF-8; {SAVE_AS_UTF8}.")
    if len(set(header)) < len(header):
        raise DatasetError(f"has the same column twice ({', '.join(header)[:200]}). Give each column its own name.")
    return header


def _csv_record(number: int, cells: list[str], header: list[str]) -> Record:
    text = ",".join(cells)[:2000].encode(errors="replace").decode()
    if not cells:
        return Record(number, blank=True)
    if _undecoded(cells):
        return Record(number, problem=f"invalid UTF-8; {SAVE_AS_UTF8}", text=text)
    if len(cells) != len(header):
        return Record(
            number, problem=f"it has {len(cells)} fields, but the header names {len(header)} columns", text=text
        )
    return Record(number, dict(zip(header, cells, strict=True)), text=text)


READERS: dict[str, Callable[[BinaryIO, int], Iterator[Record]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "text": text_rows,
}
