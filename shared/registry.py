"""What has been published: data sets, adapters and exports, and the aliases that point at them."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared.schemas import NOT_SERVED, AdapterCard, ExportCard, now
from shared.store import (
    BadName,
    NotFound,
    Store,
    append_line,
    check_name,
    publish,
    read_json,
    split_reference,
    take_away,
    write_atomic,
)

Served = Literal["base", "adapter", "export"]
OLD_CARD = {"kind": "conversations"}  # what the card of a data set lacks that is older than kinds


@dataclass(frozen=True)
class Target:
    """What a model name stands for. `path` is the adapter's folder or the export's file; None for the base."""

    kind: Served
    name: str
    path: Path | None = None


# ---- data sets


def dataset_card(store: Store, reference: str) -> dict[str, Any]:
    """The card of data set `name@version`, or of the newest version of `name`. Raises NotFound."""
    full = dataset_reference(store, reference)
    return {**OLD_CARD, **read_json(store.dataset(full) / "card.json"), "reference": full}


def dataset_reference(store: Store, reference: str) -> str:
    """`name` or `name@version` as the full `name@version` of a data set that exists. Raises NotFound."""
    if "@" in reference:
        if (store.dataset(reference) / "card.json").exists():
            return reference
    else:
        versions = [c for c in datasets(store) if c["name"] == check_name(reference, "data set")]
        if versions:
            return versions[0]["reference"]
    raise NotFound(
        f"There is no data set {reference!r}. {_known([c['reference'] for c in datasets(store)], 'data set')}"
    )


def datasets(store: Store) -> list[dict[str, Any]]:
    """The cards of all data sets, the newest first."""
    cards = []
    for path in store.datasets().glob("[!.]*/[!.]*/card.json"):
        cards.append({**OLD_CARD, **read_json(path), "reference": f"{path.parent.parent.name}@{path.parent.name}"})
    return sorted(cards, key=lambda card: card["created"], reverse=True)


# ---- adapters


def publish_adapter(store: Store, staged: Path, card: dict[str, Any]) -> AdapterCard:
    """Publish the PEFT files in `staged` as the next version of `card["name"]`, by one rename."""
    folder = store.adapters() / check_name(card["name"], "adapter")
    folder.mkdir(parents=True, exist_ok=True)
    number = max((int(p.name[1:]) for p in folder.glob("v*") if p.name[1:].isdigit()), default=0)
    while True:
        number += 1
        full = AdapterCard(**card, version=f"v{number}")
        write_atomic(staged / "card.json", full.model_dump_json(indent=2, exclude_none=True) + "\n")
        if publish(staged, folder / full.version):
            return full


def adapter_card(store: Store, reference: str) -> AdapterCard:
    """Raises NotFound."""
    try:
        return AdapterCard.model_validate(read_json(store.adapter(reference) / "card.json"))
    except FileNotFoundError:
        known = [card.reference for card in adapters(store)]
        raise NotFound(f"There is no adapter {reference!r}. {_known(known, 'adapter')}") from None


def adapter_reference(store: Store, name: str) -> str:
    """`name@version`, an alias or a bare name, which is its newest version, as the full reference of an adapter that
    exists. An alias goes before a bare name, as it does in `resolve`. Raises NotFound."""
    target = aliases(store).get(name, name)
    if "@" in target:
        return adapter_card(store, target).reference
    versions = [card for card in adapters(store) if card.name == target]
    if not versions:
        raise NotFound(f"There is no adapter {target!r}. {_known([c.reference for c in adapters(store)], 'adapter')}")
    return versions[0].reference


def adapter_files(store: Store, reference: str) -> dict[str, Path]:
    """The files of an adapter by name. Raises NotFound."""
    folder = store.adapter(adapter_card(store, reference).reference)
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."}


def adapters(store: Store) -> list[AdapterCard]:
    """All adapters, the newest first."""
    cards = [AdapterCard.model_validate(read_json(p)) for p in store.adapters().glob("[!.]*/v*/card.json")]
    return sorted(cards, key=lambda card: (card.created, card.version), reverse=True)


def remove_adapter(store: Store, reference: str) -> None:
    """Take an adapter away in one step. Its folder stays, empty: it keeps the number, so that name@version never means
    something else. Raises NotFound."""
    folder = store.adapter(adapter_card(store, reference).reference)
    take_away(store, folder, store.adapters())
    folder.mkdir()


# ---- exports


def publish_export(store: Store, staged: Path, card: ExportCard) -> None:
    """Publish a GGUF file or a folder of merged weights: its card first, then the file by one rename, so that what can
    be seen has its card. An earlier export of the same name is the same content and is replaced."""
    target = store.export(card.file)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(_export_card(target), card.model_dump_json(indent=2) + "\n")
    if staged.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        publish(staged, target)
    else:
        with open(staged, "rb") as file:
            os.fsync(file.fileno())
        staged.chmod(0o644)
        os.replace(staged, target)


def export_card(store: Store, name: str) -> ExportCard:
    """The card of an export by file name, with or without `.gguf`. Raises NotFound."""
    for file in (name, f"{name}.gguf"):
        path = store.export(file)
        if path.exists() and _export_card(path).exists():
            return ExportCard.model_validate(read_json(_export_card(path)))
    raise NotFound(f"There is no export {name!r}. {_known([c.file for c in exports(store)], 'export')}")


def exports(store: Store) -> list[ExportCard]:
    """All exports, the newest first."""
    cards = [ExportCard.model_validate(read_json(p)) for p in store.exports().glob("[!.]*.json")]
    return sorted((c for c in cards if store.export(c.file).exists()), key=lambda card: card.created, reverse=True)


def served_export(store: Store, alias: str) -> ExportCard | None:
    """What the GGUF server serves: the export that `alias` points at, else the newest GGUF file; None while there is none."""
    found = [card for card in exports(store) if card.encoding not in NOT_SERVED]
    target = aliases(store).get(alias)
    return next((card for card in found if card.file == target), found[0] if found else None)


def _export_card(path: Path) -> Path:
    return path.with_name(path.name + ".json")


# ---- aliases


def aliases(store: Store) -> dict[str, str]:
    """Each alias and what it points at."""
    return {p.name: p.read_text().strip() for p in sorted(store.aliases().glob("[!.]*")) if p.is_file()}


def removed_aliases(store: Store) -> list[str]:
    """The aliases that were removed and have a history, so that they can be brought back."""
    known = aliases(store)
    return [p.stem for p in sorted(store.aliases().glob(".history/[!.]*.jsonl")) if p.stem not in known]


def point_alias(store: Store, alias: str, target: str) -> str | None:
    """Point `alias` at an adapter or an export, atomically, and keep the history; return what it pointed at before.

    Raises NotFound if the target does not exist, BadName if the alias cannot be a name."""
    path = store.alias(alias)
    target = adapter_card(store, target).reference if "@" in target else export_card(store, target).file
    before = aliases(store).get(alias)
    if before != target:
        _remember(store, alias, target, before)
        write_atomic(path, target + "\n")
    return before


def remove_alias(store: Store, alias: str) -> None:
    """Raises NotFound."""
    before = aliases(store).get(check_name(alias, "alias"))
    if before is None:
        raise NotFound(f"There is no alias {alias!r}. {_known(list(aliases(store)), 'alias')}")
    _remember(store, alias, None, before)
    store.alias(alias).unlink()


def undo_alias(store: Store, alias: str) -> str | None:
    """Point the alias back at what it pointed at before; None if that was nothing. Raises NotFound without a history."""
    history = alias_history(store, alias)
    if not history:
        raise NotFound(f"The alias {alias!r} has no history to go back in.")
    before = history[-1]["before"]
    if before is None:
        remove_alias(store, alias)
    else:
        point_alias(store, alias, before)
    return before


def alias_history(store: Store, alias: str) -> list[dict[str, Any]]:
    """Each change of the alias, the oldest first: time, target, before."""
    path = store.alias_history(alias)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _remember(store: Store, alias: str, target: str | None, before: str | None) -> None:
    path = store.alias_history(alias)
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps({"time": now(), "target": target, "before": before}))


# ---- names


def resolve(store: Store, model: str, base_model: str) -> Target:
    """What the name `model` stands for: the base model, an alias, an adapter `name@version` or an export.

    Raises NotFound that lists what there is."""
    if model in (base_model, "base"):
        return Target("base", base_model)
    try:
        name = aliases(store).get(model, model)
        if "@" in name:
            split_reference(name)
            return Target("adapter", name, store.adapter(adapter_card(store, name).reference))
        card = export_card(store, name)
        return Target("export", card.file, store.export(card.file))
    except (NotFound, BadName):
        known = [
            base_model,
            *aliases(store),
            *(a.reference for a in adapters(store)),
            *(e.file for e in exports(store)),
        ]
        raise NotFound(f"There is no model {model!r}. There are: {', '.join(known)}.") from None


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(names: list[str], what: str) -> str:
    return f"There are: {', '.join(names[:20])}." if names else f"There is no {what} yet."
