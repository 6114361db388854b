"""Pages of lists: the two query values, and the shape of the answer."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import request
from pydantic import BaseModel, Field


class Paging(BaseModel):
    """Which part of a list."""

    limit: int = Field(50, ge=1, le=1000, description="the most items of one page")
    offset: int = Field(0, ge=0, description="items to pass over")


def page(items: Sequence[Any], paging: Paging) -> dict[str, Any]:
    """The part of `items` that was asked for."""
    return whole(list(items[paging.offset : paging.offset + paging.limit]), len(items), paging)


def whole(items: list[Any], total: int, paging: Paging) -> dict[str, Any]:
    """The answer for a part that has been read already, of `total` items."""
    after = paging.offset + paging.limit
    query = urlencode({**request.args, "limit": paging.limit, "offset": after})
    return {"items": items, "total": total, "next": f"{request.path}?{query}" if after < total else None}
