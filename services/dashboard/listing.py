"""Lists of the pages: searched, sorted and paged by what stands in the address, so that a link shows the same to everybody."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import request

SIZE = 25


@dataclass(frozen=True)
class Listing:
    """One page of a list. `sort` is a column's name, with a minus in front when the highest comes first."""

    items: list[Any]
    total: int
    page: int
    pages: int
    sort: str
    q: str

    def url(self, **changes: Any) -> str:
        """This page's address with some of its values changed; empty ones are left out."""
        kept = {**request.args.to_dict(), **changes}
        query = urlencode({key: value for key, value in kept.items() if value not in ("", None)})
        return f"{request.path}?{query}" if query else request.path


def listing(
    items: Sequence[Any],
    *,
    sorts: dict[str, Callable[[Any], Any]],
    default: str,
    text: Callable[[Any], str] | None = None,
    size: int = SIZE,
) -> Listing:
    """The page of `items` that the address asks for: `q` is searched in `text(item)`, `sort` is a name of `sorts`.

    An item whose key is None comes last. What the address has wrong counts as not said."""
    q = request.args.get("q", "").strip()
    if q and text:
        items = [item for item in items if q.lower() in text(item).lower()]
    sort = request.args.get("sort", default)
    if sort.removeprefix("-") not in sorts:
        sort = default
    if sort.removeprefix("-") in sorts:
        key = sorts[sort.removeprefix("-")]
        known = sorted((i for i in items if key(i) is not None), key=key, reverse=sort.startswith("-"))
        items = known + [item for item in items if key(item) is None]
    pages = max(1, math.ceil(len(items) / size))
    page = min(max(request.args.get("page", 1, type=int), 1), pages)
    return Listing(list(items[(page - 1) * size : page * size]), len(items), page, pages, sort, q)
