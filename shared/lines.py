"""The lines of a stream of bytes, as they become whole."""


class Lines:
    """Ends lines at a newline only: `iter_lines` of HTTP libraries also splits at U+2028 and its like, which JSON may hold."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that this chunk completes."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line.removesuffix(b"\r").decode("utf-8", errors="replace") for line in whole]
