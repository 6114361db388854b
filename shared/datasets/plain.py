"""Plain text as rows: a file is one document, form feeds part it into several, and a long document into sections."""

from collections.abc import Iterable, Iterator

SECTION = 8000  # characters, some 2,000 tokens: enough rows of a book to keep some for validation
LONGEST = 8 * SECTION  # of a section without a blank line


def sections(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, bool]]:
    """Yield (first line, text, whether its document goes on in the next section) from numbered lines.

    A section ends with its document, or with the first paragraph that brings it to SECTION characters."""
    held: list[str] = []
    start, size, blank = 1, 0, False
    for number, line in lines:
        for nth, piece in enumerate(line.split("\f")):
            full = size >= SECTION and (blank or size >= LONGEST) and piece.strip()
            if held and (nth or full):
                yield start, _joined(held, continues=not nth), not nth
                held, size = [], 0
            if not held:
                start = number
            blank = not piece.strip()
            if held or not blank:
                held.append(piece)
                size += len(piece)
    if held:
        yield start, _joined(held, continues=False), False


def _joined(lines: list[str], *, continues: bool) -> str:
    return "".join(lines) if continues else "".join(lines).rstrip()
