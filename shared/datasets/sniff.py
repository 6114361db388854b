"""What kind of file an upload is, by its first bytes; the name only settles doubt."""

import csv
import gzip
import json
import re
import zlib
from pathlib import Path

import ijson

from shared.datasets.errors import DatasetError
from shared.datasets.formats import COLUMNS

HEAD = 64 * 1024
EXPORT = "Export it as JSONL, JSON, CSV or Parquet."
ZIP = "Unpack it and upload the file of conversations inside; export a spreadsheet as CSV UTF-8."
REFUSED = [
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive or an office document", ZIP),
    (
        rb"\x80[\x02-\x05]",
        "a Python pickle, which can run code when it is opened",
        "Export the rows as JSONL or Parquet.",
    ),
    (
        rb"\x28\xb5\x2f\xfd|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!",
        "compressed in a way that is not read here",
        "Unpack it, or compress it with gzip.",
    ),
    (
        rb"ARROW1|\xff\xff\xff\xff",
        "an Arrow file",
        "Write it with `dataset.to_parquet(...)` or `dataset.to_json(...)`.",
    ),
    (rb"PARE", "an encrypted Parquet file", "Write it without encryption."),
    (
        rb"%PDF|SQLite format 3|\x89PNG|\xff\xd8\xff|GGUF|\x89HDF",
        "not a file of conversations (a PDF, image, database or model)",
        EXPORT,
    ),
    (rb"version https://git-lfs", "a Git LFS pointer, not the data", "Run `git lfs pull` and upload the file itself."),
    (
        rb"(?i)\s*(<!doctype html|<html|<head|<script)",
        "a web page, not the data",
        "Use the site's download or 'raw' link.",
    ),
]
XML = rb"\s*<[?a-zA-Z!]"  # Markdown may begin with it as well
PLAIN = (".txt", ".md", ".markdown", ".txt.gz", ".md.gz", ".markdown.gz")
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def sniff(path: Path, filename: str, max_line: int) -> tuple[str, bool]:
    """(kind, gzipped) of a file: kind is `jsonl`, `json`, `csv`, `parquet` or `text`.

    Reads the first 64 KiB, and up to `max_line` bytes where the first line is longer. `filename` is the name that the
    person knows; a file is plain text only if the name says so and no rows are seen inside. Raises DatasetError for an
    empty file and for everything that is none of these.
    """
    head = _head(path, HEAD)
    if not head:
        raise DatasetError(f"{filename} is empty (0 bytes). Upload a file with at least one conversation.")
    if head.startswith(b"PAR1"):
        return "parquet", False
    gzipped = head.startswith(b"\x1f\x8b")
    if gzipped:
        head = _unzipped_head(path, filename, HEAD)
        if head.startswith((b"PAR1", b"\x1f\x8b")):
            raise DatasetError(f"{filename} holds another compressed file inside gzip. Upload the inner file itself.")
    _refuse(head, filename)
    if b"\n" not in head and len(head) == HEAD:
        head = _unzipped_head(path, filename, max_line) if gzipped else _head(path, max_line)
    return _text_kind(head, filename), gzipped


def header_fields(head: bytes) -> tuple[list[str], str]:
    """(column names, delimiter) of a CSV file's first line; the delimiter is the one that gives the most columns."""
    line = next((line for line in decode_header(head).splitlines() if line.strip()), "")
    candidates = [(next(csv.reader([line], delimiter=d), []), d) for d in ",;\t|"]
    return max(candidates, key=lambda found: len(found[0]))


def decode_header(head: bytes) -> str:
    """The text of a file's first bytes, for looking at; bytes that are no text become U+FFFD."""
    return head.decode("utf-16" if head.startswith(UTF16_BOMS) else "utf-8-sig", errors="replace")


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _unzipped_head(path: Path, filename: str, size: int) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{filename} is a damaged gzip file ({error}). Compress or upload it again.") from error


def _refuse(head: bytes, filename: str) -> None:
    for pattern, what, way_out in REFUSED:
        if re.match(pattern, head):
            raise DatasetError(f"{filename} is {what}. {way_out}")


def _text_kind(head: bytes, filename: str) -> str:
    first, plain = head.removeprefix(UTF8_BOM).lstrip(), filename.lower().endswith(PLAIN)
    if not first and not head.startswith(UTF16_BOMS):
        raise DatasetError(f"{filename} holds only white space. Upload a file with at least one conversation.")
    if first.startswith(b"[") and (not plain or re.match(rb"\[\s*\{\s*\"", first)):
        return "json"
    if first.startswith(b"{") and (not plain or re.match(rb"\{\s*\"", first)):
        return "json" if _is_container(first) else "jsonl"
    if b"\0" in head and not head.startswith(UTF16_BOMS):
        raise DatasetError(f"{filename} is binary data that is not Parquet. {EXPORT}")
    columns, _ = header_fields(head)
    known = COLUMNS & {column.strip().lower() for column in columns}
    if len(known) > plain or filename.lower().endswith((".csv", ".tsv", ".csv.gz")):  # one word may be a heading
        return "csv"
    if not plain and re.match(XML, head):
        raise DatasetError(f"{filename} is XML. {EXPORT}")
    if not plain and re.search(rb"(?m)^\s*\{", head):
        return "jsonl"
    if head.startswith(UTF16_BOMS):
        raise DatasetError(f"{filename} is in UTF-16. Save it as UTF-8.")
    if plain:
        return "text"
    raise DatasetError(
        f"{filename} is neither JSONL, JSON, CSV nor Parquet; it begins with "
        f"'{decode_header(head[:60]).strip()}'. {EXPORT} If it is plain text, give it a name that ends with .txt."
    )


def _is_container(head: bytes) -> bool:
    """Whether bytes that begin with `{` open one JSON object around all rows, rather than the first row of JSONL."""
    line, _, rest = head.partition(b"\n")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return _opens_list(head)
    return not rest.strip() and not COLUMNS & set(row) and any(isinstance(value, list) for value in row.values())


def _opens_list(head: bytes) -> bool:
    """Whether `head` is the beginning of valid JSON: an object printed over lines, or on one very long line."""
    events = ijson.sendable_list()
    try:
        ijson.basic_parse_coro(events).send(head[:HEAD])
    except ijson.JSONError:
        return False
    depth, names = 0, set()
    for event, value in events:
        depth += event.startswith("start") - event.startswith("end")
        names |= {value} if event == "map_key" and depth == 1 else set()
    return b"\n" in head[:HEAD] or not COLUMNS & names
