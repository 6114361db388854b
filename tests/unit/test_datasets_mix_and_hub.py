"""A mix keeps its proportion and repeats nothing; a hub dataset is read from the cache alone."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from shared.datasets import Card, DatasetError, NotCached, from_hub, ingest, mix, stream

COMMIT = "a" * 40
REPOSITORY = "HuggingFaceH4/Multilingual-Thinking"


def build(directory: Path, name: str, count: int, **rest: object) -> Path:
    lines = (
        {"messages": [{"role": "user", "content": f"{name} {n}"}, {"role": "assistant", "content": "b"} | rest]}
        for n in range(count)
    )
    (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest(directory / name, f"{name}.jsonl", directory / f"{name}.set", count_tokens=None, name=name, licence="MIT")
    return directory / f"{name}.set"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return build(tmp_path, "deep", 90, thinking="hm"), build(tmp_path, "short", 100)


def asked(directory: Path) -> list[str]:
    return [row["messages"][0]["content"] for row in stream(directory)]


def test_a_mix_takes_as_many_rows_as_both_permit(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    card = mix(*pair, tmp_path / "mix", name="mixed")
    names = asked(tmp_path / "mix")
    assert (card.rows.accepted, card.reasoning.share, len(set(names))) == (120, 0.75, 120)
    parents = [f"{parent.name}@{parent.version}" for parent in map(Card.load, pair)]
    assert (card.parents, card.source, card.licence) == (parents, f"mix of {parents[0]} and {parents[1]}", "MIT")
    for start in range(0, 120, 20):
        assert sum(name.startswith("deep") for name in names[start : start + 20]) == 15


def test_a_mix_depends_on_its_seed_alone(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    versions = [
        mix(*pair, tmp_path / f"mix{n}", name="mixed", total=40, seed=seed).version for n, seed in enumerate((1, 1, 2))
    ]
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize(("share", "total"), [(0.75, 4), (0.75, 40), (0.5, 7), (0.1, 30), (0.9, 99)])
def test_a_mix_has_the_share_that_was_asked_for(
    tmp_path: Path, pair: tuple[Path, Path], share: float, total: int
) -> None:
    mix(*pair, tmp_path / "mix", name="mixed", share=share, total=total)
    names = asked(tmp_path / "mix")
    assert (len(names), sum(name.startswith("deep") for name in names)) == (total, round(total * share))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"total": 121}, "deep has 90 rows and short 100: at a share of 0.75 they make 120 rows, not 121"),
        ({"share": 1.0}, "a number between 0 and 1"),
        ({"share": 75}, "a number between 0 and 1"),
        ({"total": 1}, "leaves nothing of one of them"),
        ({"total": 0}, "leaves nothing of one of them"),
        ({"share": 0.001, "total": 90}, "leaves nothing of one of them"),
    ],
)
def test_an_impossible_mix_is_refused(tmp_path: Path, pair: tuple[Path, Path], options: dict, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        mix(*pair, tmp_path / "mix", name="mixed", **options)
    assert not (tmp_path / "mix").exists()


def test_a_mix_of_rows_without_thinking_says_so(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    card = mix(pair[1], pair[0], tmp_path / "mix", name="mixed", total=8)
    assert [count for note, count in card.warnings.items() if "has no thinking" in note] == [6]


def thinking_rows(count: int, first: int = 0) -> list[dict]:
    return [
        {
            "reasoning_language": "French",
            "developer": "Be kind.",
            "user": f"What is the answer to {n}?",
            "analysis": "Je pense que la réponse est là.",
            "final": "It is the one.",
            "messages": [
                {"content": "reasoning language: French\n\nBe kind.", "role": "system", "thinking": None},
                {"content": f"What is the answer to {n}?", "role": "user", "thinking": None},
                {"content": "It is the one.", "role": "assistant", "thinking": "Je pense que la réponse est là."},
            ],
        }
        for n in range(first, first + count)
    ]


def cache(directory: Path, files: dict[str, list[dict] | str], repository: str = REPOSITORY) -> Path:
    """A hub cache with one snapshot, laid out as huggingface_hub does: names are links to blobs."""
    folder = directory / f"datasets--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    for number, (name, content) in enumerate(files.items()):
        blob, link = folder / "blobs" / f"{number:040}", folder / "snapshots" / COMMIT / name
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), blob)
        else:
            blob.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return directory


README = """---
license: apache-2.0
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
# Data
"""


def test_a_cached_parquet_dataset_is_read_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("went to the network"))
    files = {
        "README.md": README,
        "data/train-00000-of-00002.parquet": thinking_rows(150),
        "data/train-00001-of-00002.parquet": thinking_rows(50, 150),
    }
    card = from_hub(REPOSITORY, tmp_path / "set", cache_dir=cache(tmp_path / "hub", files))
    assert (card.name, card.rows.accepted, card.licence, card.format) == (
        "multilingual-thinking",
        200,
        "apache-2.0",
        "messages",
    )
    assert card.source == f"{REPOSITORY}@{COMMIT}/train"
    assert (card.reasoning.share, card.reasoning.languages, card.languages) == (1.0, {"fr": 1.0}, {"en": 1.0})
    assert card.columns == ["reasoning_language", "developer", "user", "analysis", "final", "messages"]
    first = next(stream(tmp_path / "set"))
    assert [list(message) for message in first["messages"]] == [["role", "content"]] * 2 + [
        ["role", "content", "thinking"]
    ]


def test_a_rejected_row_names_its_shard(tmp_path: Path) -> None:
    files = {"train/a.jsonl": thinking_rows(1), "train/b.jsonl": [{"messages": []}], "test/c.jsonl": thinking_rows(5)}
    card = from_hub(REPOSITORY, tmp_path / "set", cache_dir=cache(tmp_path / "hub", files), name="mine")
    assert (card.name, card.rows.accepted) == ("mine", 1)
    assert "train/b.jsonl line 1: 'messages' is an empty list" in (tmp_path / "set" / "rejected.jsonl").read_text()


CONFIGS = (
    "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: ['en/*.jsonl', 'more/**/en.jsonl']\n"
    "- config_name: de\n  data_files: de.jsonl\n- config_name: all\n  data_dir: every\n---\n"
)
LAYOUTS = {
    "a file named after the split": ({"train.jsonl": 2, "test.jsonl": 3}, {}, 2),
    "another split": ({"train.jsonl": 2, "test.jsonl": 3}, {"split": "test"}, 3),
    "a split with an underscore": (
        {"data/train_sft-00000-of-00001.jsonl": 2, "data/train_gen-00000-of-00001.jsonl": 3},
        {"split": "train_sft"},
        2,
    ),
    "an exact name before a similar one": (
        {"data/train-00000-of-00001.jsonl": 2, "data/train_gen-00000-of-00001.jsonl": 3},
        {},
        2,
    ),
    "files that name no split": ({"one.jsonl": 2, "two.jsonl": 3, "dataset_infos.json": 1}, {}, 5),
    "a folder as configuration": ({"en/train.jsonl": 2, "de/train.jsonl": 3}, {"config": "de"}, 3),
    "patterns of the README": (
        {"README.md": CONFIGS, "en/a.jsonl": 2, "en/b.jsonl": 2, "more/x/en.jsonl": 1, "de.jsonl": 9},
        {"config": "en"},
        5,
    ),
    "one path of the README": ({"README.md": CONFIGS, "en/a.jsonl": 2, "de.jsonl": 9}, {"config": "de"}, 9),
    "a folder of the README": (
        {"README.md": CONFIGS, "en/a.jsonl": 2, "every/train.jsonl": 4, "every/test.jsonl": 1},
        {"config": "all"},
        4,
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_files_of_a_split_are_found(tmp_path: Path, case: str) -> None:
    files, options, expected = LAYOUTS[case]
    content = {name: thinking_rows(count) if isinstance(count, int) else count for name, count in files.items()}
    assert (
        from_hub(REPOSITORY, tmp_path / "set", cache_dir=cache(tmp_path / "hub", content), **options).rows.accepted
        == expected
    )


REFUSALS = {
    "an absent dataset": (None, {}, NotCached, "hf download --repo-type dataset HuggingFaceH4/Multilingual-Thinking"),
    "an absent revision": ({"train.jsonl": 1}, {"revision": "v2"}, NotCached, "--revision v2"),
    "a snapshot without data": ({"README.md": README}, {}, NotCached, "holds no data file"),
    "an absent split": (
        {"train.jsonl": 1},
        {"split": "test"},
        DatasetError,
        "has no split 'test' in the cache. Its files are: train.jsonl",
    ),
    "an absent configuration": (
        {"README.md": CONFIGS, "en/a.jsonl": 1},
        {"config": "fr"},
        DatasetError,
        "Name one of en, de, all",
    ),
    "several configurations": ({"README.md": CONFIGS, "en/a.jsonl": 1}, {}, DatasetError, "has several configurations"),
    "a broken README": ({"README.md": "---\na: [1\n---\n", "a.jsonl": 1}, {}, DatasetError, "broken YAML header"),
    "a pattern that leaves the snapshot": (
        {"README.md": README.replace("data/train-*", "../../**"), "a.jsonl": 1},
        {},
        DatasetError,
        "has no split",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_cache_does_not_hold_is_said(tmp_path: Path, case: str) -> None:
    files, options, error, reason = REFUSALS[case]
    content = {name: thinking_rows(count) if isinstance(count, int) else count for name, count in (files or {}).items()}
    directory = cache(tmp_path / "hub", content) if files else tmp_path
    with pytest.raises(error) as refusal:
        from_hub(REPOSITORY, tmp_path / "set", cache_dir=directory, **options)
    assert reason in str(refusal.value)
    assert not (tmp_path / "set").exists()


def test_a_name_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="owner/name"):
        from_hub("a/b/c", tmp_path / "set", cache_dir=tmp_path)
