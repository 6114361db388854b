"""A file of rows becomes a dataset's directory, in one pass and with little memory."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared.datasets.canonical import kind, shown
from shared.datasets.card import Card, Rows
from shared.datasets.directory import EXCERPT, Writer
from shared.datasets.errors import DatasetError, RowError
from shared.datasets.formats import KINDS, accepted_formats, convert, detect, kind_of_columns
from shared.datasets.readers import DEFAULT_LIMITS, Limits, Record, Source

Progress = Callable[[int, int, Rows], None]
STEP = 500  # rows between two reports of progress
MAX_COLUMNS = 200
MAX_NOTES = 50
MAX_REASONS = 20


def ingest(
    source: Path,
    filename: str,
    destination: Path,
    *,
    count_tokens: Callable[[dict], int] | None,
    name: str,
    licence: str = "",
    notes: str = "",
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Card:
    """Read the conversations in `source`, which the person calls `filename`, into the new directory `destination`.

    The kind of file and the format are found in its content. Every row is accepted into data.jsonl or rejected with
    its reason into rejected.jsonl. `count_tokens` gives the length of a canonical row; `progress` is called with
    (bytes read, bytes in all, rows so far). Raises DatasetError when the file cannot be read or no row of it can be used, and
    FileExistsError when `destination` exists; nothing is left behind then.
    """
    with Writer(destination, count_tokens) as writer:
        file = Source(source, filename, limits)
        intake = read_files([file], writer, progress)
        _keep(source, destination / f"original{_extension(filename, file)}")
        return writer.finish(
            name=name,
            format=intake.format,
            file_format=file.file_format,
            columns=intake.columns,
            source=filename,
            licence=licence,
            notes=notes,
        )


def read_files(files: list[Source], writer: Writer, progress: Progress | None = None) -> "Intake":
    """Read every row of `files`, the shards of one dataset, into `writer`; DatasetError when none is accepted."""
    intake = Intake(writer)
    total, before = sum(file.size for file in files), 0
    for file in files:
        shard = f"{file.filename} " if len(files) > 1 else ""
        for count, record in enumerate(file.records()):
            intake.take(record, f"{shard}{file.unit} {record.line}")
            if progress and count % STEP == 0:
                progress(before + file.position, total, writer.rows)
        before += file.size
    if progress:
        progress(total, total, writer.rows)
    if not writer.rows.accepted:
        raise DatasetError(intake.failure(" and ".join(file.filename for file in files[:2])), intake.rejected)
    return intake


@dataclass
class Intake:
    """Puts rows into the writer. The first row that has the columns of a format settles the format of the file."""

    writer: Writer
    format: str | None = None
    columns: list[str] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    noted: set[str] = field(default_factory=set)

    def take(self, record: Record, place: str) -> None:
        """Accept or reject one record, or count it as blank; `place` begins the reason."""
        if record.blank:
            self.writer.rows.blank += 1
            return
        self._check_kind(record.value, place)
        try:
            self._accept(record)
        except RowError as error:
            reason = f"{place}: {error}"
            text = _excerpt(record)
            if len(self.rejected) < MAX_REASONS:
                self.rejected.append({"line": record.line, "reason": reason, "text": text[:EXCERPT]})
            self.writer.reject(record.line, reason, text)

    def _check_kind(self, value: object, place: str) -> None:
        """Raise DatasetError when a row is of another kind than those before it."""
        found = kind_of_columns(value) if isinstance(value, dict) else None
        if self.format and found and found != KINDS[self.format]:
            raise DatasetError(
                f"The file mixes two kinds of rows: {place} is of {found}, those before it of {KINDS[self.format]}. "
                "A data set has one kind: put them into two files and upload each."
            )

    def _accept(self, record: Record) -> None:
        if record.problem:
            raise RowError(record.problem)
        if not isinstance(record.value, dict):
            hint = '; wrap it as {"messages": [...]}' if isinstance(record.value, list) else ""
            raise RowError(f"it is {kind(record.value)}, not an object{hint}")
        self._see(record.value)
        self.format = self.format or detect(record.value)
        if not self.format:
            raise RowError(
                f"its columns ({', '.join(map(shown, list(record.value)[:10])) or 'none'}) fit no accepted format"
            )
        notes: set[str] = set()
        row = convert(record.value, self.format, notes)
        self.noted |= set(sorted(notes)[: MAX_NOTES - len(self.noted)])
        self.writer.accept(row, notes & self.noted)

    def _see(self, row: dict) -> None:
        if len(self.columns) < MAX_COLUMNS:
            self.columns += [name for key in row if (name := shown(key)) not in self.columns]

    def failure(self, filename: str) -> str:
        """Why nothing came of a file, in sentences."""
        rows = self.writer.rows
        if not rows.read:
            return f"{filename} holds no rows. Upload a file with at least one conversation."
        if self.columns and not self.format:
            single = {"role", "content"} <= set(self.columns) or {"from", "value"} <= set(self.columns)
            hint = (
                'It looks like one single conversation: put it into a line of its own, as {"messages": [...]}. '
                if single
                else ""
            )
            columns = ", ".join(self.columns[:20])
            return (
                f"No row of {filename} fits an accepted format; its columns are {columns}. {hint}{accepted_formats()}"
            )
        first = "\n".join(f"  {row['reason']}" for row in self.rejected[:3])
        return f"None of the {rows.read:,} rows of {filename} can be used. Correct them; the first reasons:\n{first}"


def _excerpt(record: Record) -> str:
    if record.text is not None:
        return record.text
    return json.dumps(record.value, ensure_ascii=False, default=str)


def _extension(filename: str, file: Source) -> str:
    found = re.search(r"(\.[A-Za-z0-9]{1,8})?\.[A-Za-z0-9]{1,8}$", Path(filename).name) if file.gzipped else None
    found = found or re.search(r"\.[A-Za-z0-9]{1,8}$", Path(filename).name)
    return found[0].lower() if found else f".{file.file_format}"


def _keep(source: Path, kept: Path) -> None:
    try:
        os.link(source.resolve(), kept)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, kept)
