"""A file that cannot be used is refused, and a row that cannot be used rejected, each with a reason that helps."""

import gzip
import io
import json
import pickle
import zipfile
from datetime import datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from shared.datasets import DatasetError, Limits, ingest

GOOD = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
LINE = json.dumps(GOOD).encode() + b"\n"
USER, ANSWER = GOOD["messages"]
CALL = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}


def parquet(rows: list[dict], **options: object) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("data.jsonl", LINE)
    return sink.getvalue()


def messages(*items: object, **rest: object) -> bytes:
    return json.dumps({"messages": list(items)} | rest).encode()


REFUSED = {
    "empty": (b"", "is empty (0 bytes)"),
    "white space": (b" \n\n\t\n", "only white space"),
    "a BOM alone": (b"\xef\xbb\xbf", "only white space"),
    "zip": (zipped(), "Unpack it and upload the file"),
    "pickle": (pickle.dumps([GOOD]), "a Python pickle, which can run code"),
    "zstd": (b"\x28\xb5\x2f\xfd rest", "compress it with gzip"),
    "arrow": (b"ARROW1\0\0rest", "to_parquet"),
    "pdf": (b"%PDF-1.7 ...", "not a file of conversations"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
    "xml": (b"<?xml version='1.0'?><rows/>", "is XML"),
    "binary garbage": (bytes(range(256)) * 4, "binary data that is not Parquet"),
    "prose": (
        b"Dear diary,\ntoday I wrote.\n",
        "neither JSONL, JSON, CSV nor Parquet; it begins with 'Dear diary",
    ),
    "UTF-16 JSON": (LINE.decode().encode("utf-16"), "is in UTF-16. Save it as UTF-8"),
    "latin-1 throughout": ('{"prompt": "é", "completion": "è"}\n'.encode("latin-1"), "invalid UTF-8 at byte 13 (0xe9)"),
    "truncated JSON list": (
        b"[" + LINE + b"," + LINE[:40],
        "breaks after row 1: it ends in the middle of the JSON, so it is truncated",
    ),
    "truncated JSON object": (b'{"data": [\n' + LINE + b"," + LINE[:40], "truncated"),
    "a comma after the last": (b"[" + LINE + b",]", "breaks after row 1: it is not valid JSON"),
    "NaN in a JSON list": (b'[{"prompt": NaN}]', "breaks after row 0: it is not valid JSON"),
    "bad UTF-8 in a JSON list": (b'[{"prompt": "\xff"}]', "is not valid UTF-8"),
    "more after the list": (b"[" + LINE + b"]\n[]", "Put one object on each line"),
    "an empty list": (b"[]", "holds no rows"),
    "an object with an empty list": (b'{"data": []}', "holds no rows"),
    "rows in two lists": (b'{"train": [' + LINE + b'],\n"test": [' + LINE + b"]}", "two lists, 'train' and 'test'"),
    "one object without rows": (b'{"name": "x", "size": 3}', "its columns are name, size. Accepted formats"),
    "columns of pandas": (
        b'{"instruction": {"0": "x"}, "output": {"0": "y"}}',
        "'instruction' is an object; it must be a string",
    ),
    "a list of numbers": (b"[1, 2, 3]", "row 1: it is a number, not an object"),
    "a list of lists": (json.dumps([GOOD["messages"]]).encode(), 'wrap it as {"messages": [...]}'),
    "one conversation": (json.dumps(GOOD["messages"]).encode(), "looks like one single conversation"),
    "unknown columns": (b'{"story": "once upon a time", "meta": 1}\n', "its columns are story, meta. Accepted formats"),
    "unknown columns in csv": (b"title;response\na;b\n", "its columns are title, response."),
    "csv with a header alone": (b"prompt,completion\n", "holds no rows"),
    "csv with a column twice": (b"prompt,prompt,completion\na,b,c\n", "the same column twice"),
    "csv with a header of latin-1": ("prompt,r\xe9ponse\n1,2\n".encode("latin-1"), "has a header that is not UTF-8"),
    "csv with an open quote": (b'prompt,completion\na,b\nc,"d\ne,f\n', "from line 3 on that does not end"),
    "csv of latin-1": ("prompt,completion\né,è\n".encode("latin-1"), "in Excel: 'CSV UTF-8'"),
    "truncated gzip": (gzip.compress(LINE * 500)[:-30], "gzip file"),
    "gzip with a bad checksum": (gzip.compress(LINE * 9000)[:-8] + bytes(8), "gzip file"),
    "gzip in gzip": (gzip.compress(gzip.compress(LINE)), "another compressed file inside gzip"),
    "zip in gzip": (gzip.compress(zipped()), "a ZIP archive"),
    "gzip bomb": (gzip.compress(LINE + b" " * 40_000_000), "decompression bomb"),
    "truncated parquet": (parquet([GOOD] * 50)[:-20], "damaged or truncated Parquet"),
    "parquet with a damaged page": (
        parquet([GOOD] * 50, use_dictionary=False).replace(b"2+2?", b"", 1),
        "damaged or truncated Parquet",
    ),
    "parquet without rows": (parquet([]), "holds no rows"),
    "encrypted parquet": (b"PARE" + bytes(20), "encrypted Parquet"),
    "parquet bomb": (
        parquet([{"prompt": "x" * 20_000_000}], compression="gzip", use_dictionary=False),
        "decompression bomb",
    ),
    "every row useless": (messages(USER) + b"\n" + messages() + b"\n", "None of the 2 rows of talks.jsonl can be used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, case: str) -> None:
    content, reason = REFUSED[case]
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(DatasetError) as refusal:
        ingest(tmp_path / "upload", "talks.jsonl", tmp_path / "set", count_tokens=None, name="talks")
    assert reason in str(refusal.value)
    assert "talks.jsonl" in str(refusal.value)
    assert not (tmp_path / "set").exists()


SURROGATE = b'{"prompt": "\\ud83d", "completion": "x"}'
REJECTED = {
    "no assistant": (messages(USER), "line 2: 'messages' has no assistant message; there is nothing to learn from it"),
    "no user": (messages(ANSWER), "no user message"),
    "no messages": (messages(), "'messages' is an empty list"),
    "null": (b'{"messages": null}', "'messages' is null"),
    "messages as a number": (b'{"messages": 5}', "'messages' is a number; it must be a list"),
    "messages as Python text": (json.dumps({"messages": str([USER, ANSWER])}).encode(), "'messages': not valid JSON"),
    "a message that is text": (messages("hi", ANSWER), "message 1 is a string; it must be an object"),
    "no role": (messages({"content": "hi"}, ANSWER), "message 1 has no 'role'"),
    "a wrong role": (
        messages({"role": "human", "content": "hi"}, ANSWER),
        "message 1 has the role 'human'; use one of system",
    ),
    "empty content": (messages(USER, {"role": "assistant", "content": " "}), "message 2 (assistant) has empty content"),
    "only thinking": (messages(USER, {"role": "assistant", "thinking": "Hm."}), "has empty content, only thinking"),
    "content as an object": (
        messages(USER, {"role": "assistant", "content": {"a": 1}}),
        "message 2 has an object as content",
    ),
    "an image": (
        messages({"role": "user", "content": [{"type": "image_url"}]}, ANSWER),
        "content part of type 'image_url'; only text",
    ),
    "thinking of a user": (
        messages(USER | {"thinking": "Hm."}, ANSWER),
        "message 1 (user) has thinking; only the assistant thinks",
    ),
    "open think": (
        messages(USER, {"role": "assistant", "content": "<think>Hm. 4"}),
        "opens <think> and never closes it",
    ),
    "two systems": (
        messages({"role": "system", "content": "a"}, {"role": "system", "content": "b"}, USER, ANSWER),
        "has 2 system messages",
    ),
    "a late system": (
        messages(USER, {"role": "system", "content": "a"}, ANSWER),
        "message 2 is a system message after the conversation has begun",
    ),
    "a result without a call": (
        messages(USER, {"role": "tool", "content": "3"}, ANSWER),
        "message 2 is a tool result, but no tool call is waiting",
    ),
    "a second result": (
        messages(USER, CALL, *[{"role": "tool", "content": "3"}] * 2, ANSWER),
        "message 4 is a tool result, but no",
    ),
    "a result for another call": (
        messages(USER, CALL, {"role": "tool", "content": "3", "tool_call_id": "b"}, ANSWER),
        "the tool call 'b', which",
    ),
    "a call of a user": (messages(USER | {"tool_calls": CALL["tool_calls"]}, ANSWER), "only the assistant calls tools"),
    "a call without a name": (
        messages(USER, {"role": "assistant", "tool_calls": [{"function": {}}]}),
        "without a function name",
    ),
    "broken arguments": (
        messages(USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}),
        "the arguments of 'f' in message 2: not valid",
    ),
    "a list as arguments": (
        messages(USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[]"}]}),
        "are a list; they must be",
    ),
    "tools without names": (
        messages(USER, ANSWER, tools=[{"type": "function"}]),
        "'tools' holds an entry without a function name",
    ),
    "an unknown effort": (
        messages(USER, ANSWER, reasoning_effort="max"),
        "'reasoning_effort' is 'max'; use low, medium, high",
    ),
    "other columns": (
        b'{"prompt": "a", "completion": "b"}',
        "(prompt, completion) do not fit the format of this file, messages",
    ),
    "invalid JSON": (b'{"messages": [}', "line 2: invalid JSON at column 15: Expecting value"),
    "Python's quotes": (
        b"{'messages': []}",
        "invalid JSON at column 2: Expecting property name enclosed in double quotes",
    ),
    "NaN": (b'{"messages": [], "score": NaN}', "it holds NaN, which is not JSON"),
    "an endless number": (
        messages(USER, ANSWER, tools=[{"name": "f", "max": 1}]).replace(b'"max": 1', b'"max": 1e999'),
        "a value that JSON cannot",
    ),
    "a number of many digits": (b'{"messages": ' + b"9" * 5000 + b"}", "digits"),
    "not an object": (b'"hello"', "it is a string, not an object"),
    "a bare list": (b"[1]", "it is a list, not an object"),
    "invalid UTF-8": (messages(USER, ANSWER)[:-3] + b'\xff"}]}', "invalid UTF-8 at byte"),
    "half a character": (messages(USER, ANSWER).replace(b"2+2?", b"\\ud83d"), "half of a surrogate pair"),
    "nested deep": (b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 64 levels"),
    "nested very deep": (b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deep"),
    "too long": (messages({"role": "user", "content": "x" * 200_000}, ANSWER), "it is longer than 150,000 bytes"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_row_that_cannot_be_used_is_rejected_and_the_others_kept(tmp_path: Path, case: str) -> None:
    content, reason = REJECTED[case]
    (tmp_path / "upload").write_bytes(LINE + content + b"\n" + LINE)
    card = ingest(
        tmp_path / "upload",
        "talks.jsonl",
        tmp_path / "set",
        count_tokens=None,
        name="t",
        limits=Limits(max_line=150_000),
    )
    assert card.rows.model_dump() == {"read": 3, "accepted": 2, "rejected": 1, "blank": 0, "duplicate": 1}
    (line,) = (tmp_path / "set" / "rejected.jsonl").read_text().splitlines()
    rejected = json.loads(line)
    assert rejected["line"] == 2
    assert rejected["reason"].startswith("line 2: ") and reason in rejected["reason"]
    assert rejected["text"][:10] == content.decode(errors="replace")[:10] and len(rejected["text"]) <= 500


def rejected(tmp_path: Path, content: bytes, filename: str) -> list[dict]:
    (tmp_path / "upload").write_bytes(content)
    ingest(tmp_path / "upload", filename, tmp_path / "set", count_tokens=None, name="talks")
    return [json.loads(line) for line in (tmp_path / "set" / "rejected.jsonl").read_text().splitlines()]


def test_csv_rows_are_rejected_by_the_line_they_begin_in(tmp_path: Path) -> None:
    content = b'prompt,completion\r\na,"b\r\nb"\r\nc\r\n\r\nd,e,f\r\n"g"h,i\r\nj,\xe9\r\nk,\r\nl,m\r\n'
    found = rejected(tmp_path, content, "talks.csv")
    assert [row["reason"] for row in found] == [
        "line 4: it has 1 fields, but the header names 2 columns",
        "line 6: it has 3 fields, but the header names 2 columns",
        "line 7: invalid CSV: ',' expected after '\"'",
        "line 8: invalid UTF-8; save the file as UTF-8 (in Excel: 'CSV UTF-8')",
        "line 9: 'completion' is empty",
    ]


def test_entries_of_a_json_list_are_rejected_by_their_number(tmp_path: Path) -> None:
    deep = b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    content = b'{"data": [null,' + b",".join([LINE, b"7", deep, LINE, b'{"messages": []}']) + b"]}"
    assert [row["reason"] for row in rejected(tmp_path, content, "talks.json")] == [
        "row 1: it is not an object",
        "row 3: it is a number, not an object",
        "row 4: it is nested deeper than 64 levels",
        "row 6: 'messages' is an empty list; there is nothing to learn from it",
    ]


def test_a_json_row_beyond_the_limit_stops_the_reading(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(
        b"[" + LINE + b"," + messages({"role": "user", "content": "x" * 900_000}, ANSWER) + b"]"
    )
    with pytest.raises(DatasetError, match="more than 150,000 bytes in one row"):
        ingest(
            tmp_path / "upload",
            "t.json",
            tmp_path / "set",
            count_tokens=None,
            name="t",
            limits=Limits(max_line=150_000),
        )


def test_parquet_rows_are_rejected_by_their_number(tmp_path: Path) -> None:
    odd = {"messages": [USER | {"content": "odd!"}, ANSWER]}
    content = parquet(
        [GOOD | {"at": datetime(2025, 1, 1)}, {"messages": None}, {"messages": [USER]}, odd], compression="none"
    )
    found = rejected(tmp_path, content.replace(b"odd!", b"\xff\xff\xff\xff"), "talks.parquet")
    assert [row["reason"] for row in found] == [
        "row 2: 'messages' is null",
        "row 3: 'messages' has no assistant message; there is nothing to learn from it",
        "row 4: invalid UTF-8 (invalid start byte)",
    ]
    assert json.loads(found[0]["text"]) == {"at": None, "messages": None}
