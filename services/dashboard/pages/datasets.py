"""Data sets: what there is, what is inside each, as rows and as tokens, and two of them mixed."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlencode

from flask import Blueprint, render_template, request

from services.dashboard.context import here, store
from services.dashboard.intake import base_encoder
from services.dashboard.listing import Listing, listing
from services.dashboard.views import dataset_words, run_view, token_view
from shared import datasets, recipes, registry, runs
from shared.datasets.card import Card, Format
from shared.datasets.errors import DatasetError
from shared.datasets.formats import EXAMPLES
from shared.harmony import POLICIES, HarmonyError
from shared.schemas import DataKind, Effort, Policy
from shared.store import NotFound, free_bytes

ROWS, REJECTED, RUNS = 10, 25, 20  # on one page
EXCERPT = 3000  # characters of one text in a list; the row's own page shows LONGEST
LONGEST = 100_000
FORMATS = dict(
    zip(
        get_args(Format),
        ("Messages", "ShareGPT", "Alpaca", "Prompt and completion", "Preference", "Text"),
        strict=True,
    )
)
SORTS = {
    "name": lambda card: card["name"],
    "rows": lambda card: card["rows"]["accepted"],
    "rejected": lambda card: card["rows"]["rejected"],
    "tokens": lambda card: card["tokens"] and card["tokens"]["total"],
    "reasoning": lambda card: card["reasoning"]["share"],
    "created": lambda card: card["created"],
}
blueprint = Blueprint("dataset_pages", __name__, url_prefix="/datasets")
for filter_ in (
    dataset_words.language,
    dataset_words.reason,
    dataset_words.pretty,
    dataset_words.marked,
    token_view.visible,
):
    blueprint.add_app_template_filter(filter_)


@blueprint.get("")
def index() -> str:
    """All data sets, by name: the newest version of each, or every one; and where new ones come in."""
    cards, versions = registry.datasets(store()), defaultdict(list)
    for card in cards:
        versions[card["name"]].append(card)
    every = request.args.get("versions") == "all"
    settings = here().settings
    return render_template(
        "datasets/list.html",
        listing=listing(
            cards if every else [found[0] for found in versions.values()],
            sorts=SORTS,
            default="-created",
            text=lambda card: " ".join(map(_words, [card] if every else versions[card["name"]])),
        ),
        versions=versions,
        every=every,
        examples=EXAMPLES,
        formats=FORMATS,
        limit=settings.upload_limit_bytes,
        room=max(0, (free_bytes(store().root) - settings.min_free_bytes) // 2),
        cached=sorted(p.name[10:].replace("--", "/", 1) for p in (settings.hf_home / "hub").glob("datasets--*")),
    )


@blueprint.get("/mix")
def mix() -> str:
    """Choose two data sets and a share; what will come out is said before anything is made."""
    cards = registry.datasets(store())
    thinking = sorted(cards, key=lambda card: card["reasoning"]["share"])
    asked = {card["reference"]: card for card in cards}
    first, second = (asked.get(request.args.get(name, "")) for name in ("reasoning", "direct"))
    first = first or _partner(thinking[::-1], second)
    second = second or _partner(thinking, first)
    share = request.args.get("share", 0.75, type=float)
    share = share if 0.01 <= share <= 0.99 else 0.75
    total = request.args.get("total", type=int)
    outcome = _outcome(first, second, share, total) if first and second else {}
    return render_template("datasets/mix.html", cards=cards, first=first, second=second, share=share, **outcome)


@blueprint.get("/<ref>")
def overview(ref: str) -> str:
    """What was found in a data set, where it comes from, and what came of it."""
    card = registry.dataset_card(store(), ref)
    reference = card["reference"]
    cards = registry.datasets(store())
    used, uses = run_view.select(store(), None, None, reference, 0, RUNS)
    return _page(
        "overview",
        card,
        runs=used,
        uses=uses,
        adapters=[adapter for adapter in registry.adapters(store()) if adapter.dataset == reference],
        there={c["reference"] for c in cards},
        mixes=[c for c in cards if reference in c["parents"]],
        turns=trimmed(card["turns"]["histogram"]),
        tokens=card["tokens"] and trimmed(card["tokens"]["histogram"]),
        cuts=cuts(card["tokens"]["histogram"], card["kind"]) if card["tokens"] else [],
    )


@blueprint.get("/<ref>/rows")
def rows(ref: str) -> str:
    """The rows, by page and by what is searched for."""
    card = registry.dataset_card(store(), ref)
    q = request.args.get("q", "").strip()
    found = _paged(lambda offset: datasets.rows(_folder(card), offset, ROWS, q or None), ROWS, q)
    return _page("rows", card, listing=found, excerpt=EXCERPT)


@blueprint.get("/<ref>/rows/<int:row>")
def row(ref: str, row: int) -> str:
    """One row at an address of its own."""
    card = registry.dataset_card(store(), ref)
    return _page("row", card, row=_row(card, row), page=row // ROWS + 1, excerpt=LONGEST)


@blueprint.get("/<ref>/rejected")
def rejected(ref: str) -> str:
    """The rows that were not accepted, each with its reason."""
    card = registry.dataset_card(store(), ref)
    q, kind = request.args.get("q", "").strip(), request.args.get("kind", "")
    found = _paged(lambda offset: datasets.rejected(_folder(card), offset, REJECTED, q, kind), REJECTED, q)
    return _page("rejected", card, listing=found, kinds=datasets.kinds(_folder(card)), kind=kind)


@blueprint.get("/<ref>/tokens")
def tokens(ref: str) -> str:
    """A row as the trainer sees it, under one policy or under each."""
    card = registry.dataset_card(store(), ref)
    number = min(_number("row", 0), card["rows"]["accepted"] - 1)
    policy = request.args.get("policy", "").replace(" ", "+")  # a plus that was not encoded
    if policy not in (*POLICIES, "all") or card["kind"] != "conversations":
        policy = "analysis+final"  # of a preference or a text there is no choice
    found, problem, base_missing = {}, "", False
    try:
        found = _views(_row(card, number), POLICIES if policy == "all" else (policy,))
    except HarmonyError as error:
        problem = str(error)
    except NotFound:
        base_missing = True
    return _page(
        "tokens",
        card,
        number=number,
        policy=policy,
        policies=POLICIES,
        found=found,
        problem=problem,
        base=here().settings.base_model,
        base_missing=base_missing,
        fetching=_fetching() if base_missing else None,
        size=token_view.SHOWN,
        address=_address,
    )


def trimmed(histogram: dict[str, Any]) -> dict[str, Any]:
    """A histogram without the empty bins above its highest value; one empty bin shows that nothing follows."""
    last = max((n for n, count in enumerate(histogram["counts"]) if count), default=0)
    return {key: values[: last + 2] for key, values in histogram.items()}


def cuts(histogram: dict[str, Any], kind: DataKind) -> list[tuple[int, list[str], int]]:
    """Where recipes for a kind of rows cut: (max_length, their names, rows that are as long or longer), for those that
    cut any row. A text is parted, so none is cut."""
    names: dict[int, list[str]] = defaultdict(list)
    for name in recipes.names():
        recipe = recipes.resolve(name)
        if recipes.LEARNS_FROM[recipe.method] == kind != "text":
            names[recipe.max_length].append(name)
    longer = {edge: sum(histogram["counts"][n:]) for n, edge in enumerate(histogram["edges"])}
    return [(length, names[length], longer[length]) for length in sorted(names) if longer.get(length)]


def _page(tab: str, card: dict[str, Any], **values: Any) -> str:
    """A tab of a data set's page."""
    versions = [c for c in registry.datasets(store()) if c["name"] == card["name"]]
    return render_template(
        f"datasets/{tab}.html",
        card=card,
        ref=card["reference"],
        tab=tab,
        versions=versions,
        formats=FORMATS,
        original=any(_folder(card).glob("original*")),
        **values,
    )


def _views(row: dict[str, Any], policies: Sequence[Policy]) -> dict[str, list[token_view.View]]:
    """The row's examples under each policy, as the rest of the address asks for them. Raises NotFound without the base."""
    effort = request.args.get("effort")
    wanted = {
        "effort": effort if effort in get_args(Effort) else None,
        "max_length": _number("max_length", 0) or None,
        "room": token_view.SHOWN // len(policies),
        "only": _number("example", 0) or None,
        "part": _number("part", 1),
    }
    encoder = base_encoder()
    return {policy: token_view.views(row, encoder, policy, **wanted) for policy in policies}


def _address(**changes: Any) -> str:
    """This page's address with some of its values changed; None leaves a value out."""
    kept = {key: value for key, value in {**request.args.to_dict(), **changes}.items() if value not in ("", None)}
    return f"{request.path}?{urlencode(kept)}"


def _partner(cards: list[dict[str, Any]], other: dict[str, Any] | None) -> dict[str, Any] | None:
    """The first card to mix with `other`: one of its kind if there is one, as two kinds cannot be mixed."""
    left = [card for card in cards if card is not other]
    return min(left, key=lambda card: bool(other) and card["kind"] != other["kind"], default=None)


def _outcome(first: dict[str, Any], second: dict[str, Any], share: float, total: int | None) -> dict[str, Any]:
    """What a mix would hold, or why it cannot be made; as `shared.datasets.mix` decides it."""
    cards = Card.model_validate(first), Card.model_validate(second)
    most = datasets.largest_total(*(card.rows.accepted for card in cards), share)
    try:
        return {"counts": datasets.portions(*cards, share, total), "most": most, "total": total, "refused": ""}
    except DatasetError as error:
        return {"counts": None, "most": most, "total": total, "refused": str(error)}


def _words(card: dict[str, Any]) -> str:
    """What a search of the list looks in."""
    spoken = [dataset_words.language(code) for code in card["languages"]]
    return " ".join(
        [card["reference"], card["source"], card["licence"], card["kind"], card["format"], card["file_format"], *spoken]
    )


def _folder(card: dict[str, Any]) -> Path:
    return store().dataset(card["reference"])


def _row(card: dict[str, Any], number: int) -> dict[str, Any]:
    items, total = datasets.rows(_folder(card), number, 1)
    if not items:
        raise NotFound(f"{card['reference']} has no row {number}: its rows are counted from 0 to {total - 1}.")
    return items[0]


def _paged(read: Callable[[int], tuple[list[Any], int]], size: int, q: str) -> Listing:
    """The page that the address asks for, or the last one, of what `read(offset)` gives `size` items of."""
    page = _number("page", 1)
    items, total = read((page - 1) * size)
    pages = max(1, -(-total // size))
    if page > pages:
        items, total = read((pages - 1) * size)
    return Listing(items, total, min(page, pages), pages, "", q)


def _number(name: str, default: int) -> int:
    """A whole number of the address, not below the default or 1, whichever is less."""
    return min(max(request.args.get(name, default, type=int), min(default, 1)), 10**9)


def _fetching() -> str | None:
    """The queued or running run that fetches the base model."""
    for run_id, _ in runs.in_state(store(), "queued", "running"):
        job = run_view.spec_of(store(), run_id)
        if job["kind"] == "fetch" and job["job"].get("repository") == here().settings.base_model:
            return run_id
    return None
