"""How what stands in a data set is written on a page: languages, reasons, JSON, and text that was searched or cut."""

import json
from typing import Any

from markupsafe import Markup, escape

from shared import datasets

LANGUAGES = dict(
    zip(
        "ar bn cs da de el en es fa fr he hi id it ja ko nl pl pt ro ru sv ta th tr uk vi zh unknown".split(),
        "Arabic,Bengali,Czech,Danish,German,Greek,English,Spanish,Persian,French,Hebrew,Hindi,Indonesian,Italian,Japanese,"
        "Korean,Dutch,Polish,Portuguese,Romanian,Russian,Swedish,Tamil,Thai,Turkish,Ukrainian,Vietnamese,Chinese,"
        "not recognised".split(","),
        strict=True,
    )
)


def language(code: str) -> str:
    """The English name of a language that `shared.datasets` tells apart."""
    return LANGUAGES.get(code, code)


def reason(text: str) -> str:
    """Why a row was rejected, without the line that has a column of its own."""
    return datasets.without_place(text)


def pretty(value: Any) -> str:
    """JSON over several lines, with its letters as they are."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def marked(text: str, q: str, most: int) -> Markup:
    """Up to `most` characters of a text, around the first place where `q` stands in it, with each such place marked."""
    place = text.lower().find(q.lower()) if q else -1
    start = max(0, place - most // 3) if place + len(q) > most else 0
    cut, end = text[start : start + most], start + most < len(text)
    out, at, low = Markup("…") if start else Markup(""), 0, cut.lower()
    while q and len(low) == len(cut) and (place := low.find(q.lower(), at)) >= 0:
        out += escape(cut[at:place]) + Markup("<mark>{}</mark>").format(cut[place : place + len(q)])
        at = place + len(q)
    return out + escape(cut[at:]) + ("…" if end else "")
