"""The rows that benchmarks come to: a JSON file with one for each name, and a table of them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def read(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file.exists() else []


def keep(file: Path, row: dict[str, Any]) -> None:
    """Put a row into the file in place of an earlier one of its name."""
    others = [other for other in read(file) if other["name"] != row["name"]]
    file.write_text(json.dumps([*others, row], indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | ours | baseline | ratio | unit | how | device, date |", "|---|---:|---:|---:|---|---|---|"]
    for r in rows:
        lines.append(
            f"| `{r['name']}` | {r['ours']:,} | {r['baseline']:,} | {r['ratio']:.3f} | {r['unit']} | {r['method']} "
            f"| {r['device']}, {r['date']} |"
        )
    return "\n".join(lines) + "\n"
