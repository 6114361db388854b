"""Streams as gpt-oss generates them, well-formed and not, each with the message that is to be read from it.

Each file is a mapping from a name to `stream`, what is generated after the prompt's `<|start|>assistant`, and what is
expected of it: `reasoning`, `content`, and `calls` as [function, arguments]; what is not given is empty. `seen` is a report
of the same stream having broken another server.
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Case:
    stream: str
    reasoning: str = ""
    content: str = ""
    calls: list[list[str]] = field(default_factory=list)
    seen: str | None = None


def cases(*files: str) -> dict[str, Case]:
    """The streams of the files named, or of all of them."""
    found: dict[str, Case] = {}
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        if not files or path.stem in files:
            read = {name: Case(**case) for name, case in yaml.safe_load(path.read_text()).items()}
            assert not found.keys() & read.keys(), f"{path.name}: a name is taken"
            found |= read
    return found
