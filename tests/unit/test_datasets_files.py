"""What kind of file it is, and in which language, is found in the content."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from shared.datasets import Card, ingest, stream
from shared.datasets.languages import guess

TALK = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}


def read(tmp_path: Path, content: bytes, filename: str = "talks.jsonl") -> tuple[Card, list[dict]]:
    (tmp_path / "upload").write_bytes(content)
    card = ingest(tmp_path / "upload", filename, tmp_path / "set", count_tokens=None, name="talks")
    return card, list(stream(tmp_path / "set"))


def jsonl(*values: object) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def as_csv(delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["prompt", "completion"], ['Say "hé", twice\nor not', "hé; hé"], ["2+2?", "4"]])
    return text.getvalue().encode(encoding)


PAIRS = [{"prompt": 'Say "hé", twice\nor not', "completion": "hé; hé"}, {"prompt": "2+2?", "completion": "4"}]


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), sink)
    return sink.getvalue()


FILES = {
    "jsonl": (jsonl(*PAIRS), "jsonl"),
    "jsonl with a BOM": (b"\xef\xbb\xbf" + jsonl(*PAIRS), "jsonl"),
    "jsonl.gz": (gzip.compress(jsonl(*PAIRS)), "jsonl.gz"),
    "a JSON list": (json.dumps(PAIRS, indent=1).encode(), "json"),
    "a JSON list with a BOM": (b"\xef\xbb\xbf" + json.dumps(PAIRS).encode(), "json"),
    "json.gz": (gzip.compress(json.dumps(PAIRS).encode()), "json.gz"),
    "a JSON object around a list": (
        json.dumps({"version": 1.5, "languages": ["fr"], "about": {"n": [[]]}, "data": PAIRS}).encode(),
        "json",
    ),
    "a printed JSON object around a list": (json.dumps({"train": PAIRS}, indent=2).encode(), "json"),
    "csv": (as_csv(), "csv"),
    "csv with a BOM": (as_csv(encoding="utf-8-sig"), "csv"),
    "csv from Excel in UTF-16 with tabs": (as_csv("\t", "utf-16"), "csv"),
    "csv with semicolons": (as_csv(";"), "csv"),
    "csv.gz": (gzip.compress(as_csv()), "csv.gz"),
    "parquet": (as_parquet(), "parquet"),
}


@pytest.mark.parametrize("case", FILES)
def test_the_kind_of_file_is_found_in_its_content(tmp_path: Path, case: str) -> None:
    content, file_format = FILES[case]
    card, found = read(tmp_path, content, "upload.bin")
    assert [[m["content"] for m in row["messages"]] for row in found] == [list(pair.values()) for pair in PAIRS]
    assert (card.file_format, card.rows.read) == (file_format, 2)
    assert (tmp_path / "set" / "original.bin").read_bytes() == content


def test_messages_as_text_in_a_csv_cell_are_read(tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["id", "messages"], [1, json.dumps(TALK["messages"])]])
    assert read(tmp_path, text.getvalue().encode(), "a.csv")[1] == [TALK]


def test_a_long_first_line_is_still_jsonl(tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "x" * 200_000}, TALK["messages"][1]]}
    card, _ = read(tmp_path, jsonl(long, TALK))
    assert (card.file_format, card.rows.accepted) == ("jsonl", 2)


def test_a_json_object_on_one_long_line_is_one_list(tmp_path: Path) -> None:
    content = json.dumps({"info": {"name": "x"}, "rows": [TALK] * 2000}).encode()
    card, _ = read(tmp_path, content)
    assert (card.file_format, card.rows.accepted, card.rows.duplicate) == ("json", 2000, 1999)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "What is the capital of France and how do you get to it?"),
        ("de", "Wie komme ich zu dem Bahnhof und ist das weit von hier?"),
        ("fr", "Quelle est la capitale de la France et comment est la ville ?"),
        ("es", "¿Cuál es la capital de España y cómo se llega a la ciudad?"),
        ("it", "Qual è la capitale e come si arriva alla città?"),
        ("pt", "Qual é a capital do país e como você não sabe disso?"),
        ("nl", "Wat is de hoofdstad van het land en hoe kom je er?"),
        ("pl", "Jak się nazywa to miasto i czy jest w Polsce?"),
        ("vi", "Thủ đô của nước này là gì và bạn có biết không?"),
        ("ru", "Как называется столица России?"),
        ("uk", "Як називається столиця України і де її знайти?"),
        ("zh", "法国的首都是哪里？"),
        ("ja", "フランスの首都はどこですか。"),
        ("ko", "프랑스의 수도는 어디입니까?"),
        ("ar", "ما هي عاصمة فرنسا؟"),
        ("hi", "फ्रांस की राजधानी क्या है?"),
        ("el", "Ποια είναι η πρωτεύουσα;"),
        ("unknown", "4"),
        ("unknown", ""),
        ("unknown", "x = [1, 2]; print(x)"),
    ],
)
def test_a_language_is_guessed(code: str, text: str) -> None:
    assert guess(text) == code
