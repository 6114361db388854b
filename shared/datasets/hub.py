"""Datasets of the Hugging Face hub: fetched into its cache by one service, read from there without a network by all."""

import re
from collections.abc import Callable
from pathlib import Path

from shared.datasets.card import Card
from shared.datasets.directory import Writer
from shared.datasets.errors import DatasetError, NotCached
from shared.datasets.ingest import Progress, read_files
from shared.datasets.readers import DEFAULT_LIMITS, Limits, Source

EXTENSIONS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz")
NOT_DATA = re.compile(r"(^|/)(\.|dataset_infos?\.json$|dataset_dict\.json$|state\.json$|config\.json$|metadata\.json$)")
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


def fetch_to_cache(repo_id: str, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """Download a dataset's data files and README into the hub cache; returns the snapshot's directory.

    `cache_dir` is a hub cache, by default the one below HF_HOME. Needs the network. Raises DatasetError.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = ["README.md", *(f"*{extension}" for extension in EXTENSIONS)]
    try:
        return Path(
            snapshot_download(
                repo_id, repo_type="dataset", revision=revision, cache_dir=cache_dir, allow_patterns=patterns
            )
        )
    except GatedRepoError as error:
        raise DatasetError(
            f"{repo_id} is gated. Accept its terms on huggingface.co and set HF_TOKEN to a token that may read it."
        ) from error
    except RevisionNotFoundError as error:
        raise DatasetError(
            f"{repo_id} has no revision '{revision}'. Leave the revision out for the newest one."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DatasetError(
            f"The hub has no dataset '{repo_id}', or it is private. Check the name, as in 'owner/name'."
        ) from error
    except (OSError, HTTPError) as error:  # no network, or the hub answers with an error
        raise DatasetError(
            f"{repo_id} could not be fetched ({str(error).splitlines()[0][:200]}). Check the connection and try again."
        ) from error


def from_hub(
    repo_id: str,
    destination: Path,
    *,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    cache_dir: Path | None = None,
    count_tokens: Callable[[dict], int] | None = None,
    name: str | None = None,
    licence: str = "",
    notes: str = "",
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Card:
    """Read one split of a cached hub dataset into the new directory `destination`, without a network.

    The files of the split are those that the README's `configs` name, else those whose path says the split. The card's
    source names the commit. `name` is by default the repository's, in lower case. Raises NotCached when the dataset has
    to be fetched first, and DatasetError as `ingest` does.
    """
    snapshot = _snapshot(repo_id, revision, cache_dir)
    part = f"{config}/{split}" if config else split
    described = _description(snapshot, repo_id)
    names = split_files(snapshot, described.get("configs", []), split, config, repo_id)
    with Writer(destination, count_tokens) as writer:
        files = [Source((snapshot / file).resolve(), file, limits) for file in names]
        intake = read_files(files, writer, progress)
        stated = described.get("license") or ""
        return writer.finish(
            name=name or repo_id.split("/")[-1].lower(),
            format=intake.format,
            file_format=files[0].file_format,
            columns=intake.columns,
            source=f"{repo_id}@{snapshot.name}/{part}",
            licence=licence or (stated if isinstance(stated, str) else ", ".join(map(str, stated))),
            notes=notes,
        )


def split_files(snapshot: Path, configs: list[dict], split: str, config: str | None, repo_id: str) -> list[str]:
    """Paths, relative to `snapshot` and sorted, of the files that hold a split of a configuration.

    The conventions are those of https://huggingface.co/docs/hub/datasets-data-files-configuration. Raises NotCached
    when there is no data file at all, DatasetError when there are others.
    """
    relative = (path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    files = sorted(path for path in relative if path.endswith(EXTENSIONS) and not NOT_DATA.search(path))
    if not files:
        raise NotCached(_not_cached(repo_id, "its snapshot in the cache holds no data file"))
    if chosen := _configuration(configs, config, repo_id):
        found = _declared(files, chosen, split)
    else:
        found = _conventional([f for f in files if not config or f.startswith(f"{config}/")], split)
    if not found:
        where = f"'{config}' of {repo_id}" if config else repo_id
        raise DatasetError(
            f"{where} has no split '{split}' in the cache. Its files are: {', '.join(files[:10])}. Name another split."
        )
    return found


def _snapshot(repo_id: str, revision: str | None, cache_dir: Path | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = ["README.md", *(f"*{extension}" for extension in EXTENSIONS)]
    try:
        found = snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            cache_dir=cache_dir,
            allow_patterns=patterns,
            local_files_only=True,
        )
    except LocalEntryNotFoundError as error:
        raise NotCached(
            _not_cached(repo_id, "it is not in the local Hugging Face cache, or not as a whole", revision)
        ) from error
    except HFValidationError as error:
        raise DatasetError(f"'{repo_id}' is not the name of a hub dataset. Write it as 'owner/name'.") from error
    return Path(found)


def _not_cached(repo_id: str, why: str, revision: str | None = None) -> str:
    at = f" --revision {revision}" if revision else ""
    return f"{repo_id} cannot be read: {why}. Fetch it with a network: `hf download --repo-type dataset {repo_id}{at}`."


def _description(snapshot: Path, repo_id: str) -> dict:
    """The YAML header of the README, empty where there is none."""
    import yaml  # comes with huggingface_hub
    from huggingface_hub import DatasetCard

    readme = snapshot / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    if not re.match(r"---\s*\n", text):
        return {}
    try:
        described = DatasetCard(text, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        detail = str(error).splitlines()[0]
        raise DatasetError(
            f"The README of {repo_id} has a broken YAML header ({detail}). Name another revision."
        ) from error
    configs = described.get("configs")
    listed = [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []
    return described | {"configs": listed}


def _configuration(configs: list[dict], config: str | None, repo_id: str) -> dict | None:
    named = {str(entry.get("config_name", "default")): entry for entry in configs}
    if config is not None and named and config not in named:
        raise DatasetError(f"{repo_id} has no configuration '{config}'. Name one of {', '.join(named)}.")
    default = next((entry for entry in configs if entry.get("default")), None)
    chosen = (
        named.get(config) if config else default or named.get("default") or (configs[0] if len(configs) == 1 else None)
    )
    if named and not chosen:
        raise DatasetError(f"{repo_id} has several configurations. Name one of {', '.join(named)}.")
    return chosen


def _declared(files: list[str], entry: dict, split: str) -> list[str]:
    folder = str(entry.get("data_dir") or "").strip("./")
    inside = [file for file in files if not folder or file.startswith(f"{folder}/")]
    declared = entry.get("data_files")
    if declared is None:
        return _conventional(inside, split)
    listed = declared if isinstance(declared, list) else [declared]
    parts = [part if isinstance(part, dict) else {"split": "train", "path": part} for part in listed]
    paths = [part.get("path") for part in parts if part.get("split", "train") == split]
    patterns = [p for path in paths for p in (path if isinstance(path, list) else [path])]
    return [file for file in inside if any(_matches(file, str(pattern), folder) for pattern in patterns)]


def _matches(file: str, pattern: str, folder: str) -> bool:
    pattern = pattern.removeprefix("./")
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", f"{folder}/{pattern}" if folder else pattern)
    spelled = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return bool(re.fullmatch("".join(spelled.get(piece, re.escape(piece)) for piece in pieces), file))


def _conventional(files: list[str], split: str) -> list[str]:
    sharded = [file for file in files if re.fullmatch(rf"(.*/)?{re.escape(split)}-\d{{5}}-of-\d{{5}}[^/]*", file)]
    if sharded:
        return sharded
    named = [file for file in files if _says(file, split)]
    if not named and split == "train" and not any(_says(file, word) for file in files for word in SPLITS):
        return files
    return named


def _says(file: str, split: str) -> bool:
    return bool(re.search(rf"(^|[/._ -]){re.escape(split)}([/._ -]|\d|$)", file))
