"""Datasets: conversations from a file, a mix or the hub, as a directory of canonical rows with a card."""

from shared.datasets.append import append, canonical, holds
from shared.datasets.canonical import is_validation
from shared.datasets.card import Card
from shared.datasets.directory import rows, stream
from shared.datasets.errors import DatasetError, NotCached
from shared.datasets.hub import fetch_to_cache, from_hub
from shared.datasets.ingest import ingest
from shared.datasets.mix import largest_total, mix, portions
from shared.datasets.readers import Limits
from shared.datasets.rejected import kind_of, kinds, rejected, without_place

__all__ = [
    "Card",
    "DatasetError",
    "Limits",
    "NotCached",
    "append",
    "canonical",
    "fetch_to_cache",
    "from_hub",
    "holds",
    "ingest",
    "is_validation",
    "kind_of",
    "kinds",
    "largest_total",
    "mix",
    "portions",
    "rejected",
    "rows",
    "stream",
    "without_place",
]
