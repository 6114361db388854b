"""How an adapter is shown: its lineage, what was measured of it, what it may be asked, and what pointing an alias changes."""

import re
from itertools import islice
from typing import Any

from services.dashboard.api import adapters, aliases, exports
from services.dashboard.context import here, store
from services.dashboard.views import run_view
from shared import datasets, recipes, registry, runs
from shared.datasets.canonical import messages_of
from shared.recipes import RecipeError
from shared.schemas import ENDED, NOT_SERVED
from shared.store import NotFound

QUESTIONS, READ = 6, 5000  # held-out questions offered, and rows read in search of them
EVALUATIONS = 8  # shown; the list of runs has the others
_MESSAGE = re.compile(r"<\|start\|>user<\|message\|>(.*?)<\|end\|>", re.DOTALL)
_FINAL = re.compile(r"<\|channel\|>final<\|message\|>(.*?)(?:<\|(?:return|end)\|>|$)", re.DOTALL)


def lineage(adapter: dict[str, Any]) -> dict[str, Any]:
    """What the adapter came of and what came of it. A part that has been deleted is None, its name stays.

    {"dataset", "parents", "run", "versions", "pointing": [alias], "exports": [{export, "pointing", "served"}]}"""
    settings = here().settings
    named = aliases.views()
    served = registry.served_export(store(), settings.gguf_alias)
    made = [view for view in exports.views() if view["adapter"] == adapter["reference"]]
    dataset = _dataset(adapter["dataset"])
    return {
        "dataset": dataset,
        "parents": [(name, _dataset(name)) for name in (dataset or {}).get("parents", [])],
        "run": _run(adapter["run"]),
        "versions": [view for view in adapters.views() if view["name"] == adapter["name"]],
        "pointing": _pointing(named, adapter["reference"]),
        "exports": [
            {**view, "pointing": _pointing(named, view["file"]), "served": bool(served and served.file == view["file"])}
            for view in made
        ],
    }


def runs_of(reference: str) -> list[dict[str, Any]]:
    """The exports and evaluations of the adapter, the newest first, each as one line of the list of runs."""
    jobs = ((run_id, run_view.spec_of(store(), run_id)["job"]) for run_id in runs.ids(store()))
    return [run_view.item(store(), run_id) for run_id, job in jobs if job.get("adapter") == reference]


def worth_showing(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `runs_of`: what waits and runs, and what failed and has not been done since."""
    newest = {(run["kind"], run["encoding"]): run["id"] for run in reversed(found)}
    return [
        run for run in found if run["state"] not in ENDED or (run["state"] == "failed" and run["id"] in newest.values())
    ]


def evaluations(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `runs_of`: the newest evaluations that succeeded, each with `loss_base`, `loss_adapter`, `unseen` (whether the
    rows were held out of training) and `answers`, one {"prompt", "base", "adapter"} for each prompt."""
    told = []
    for run in islice((r for r in found if r["kind"] == "evaluate" and r["state"] == "succeeded"), EVALUATIONS):
        if event := next(runs.all_events(store(), run["id"], "evaluation"), None):
            answers = zip(event["prompts"], event["base"]["answers"], event["adapter"]["answers"], strict=False)
            shown = [{"prompt": _asked(p), "base": _said(b), "adapter": _said(a)} for p, b, a in answers]
            losses = {f"loss_{who}": event[who]["loss"] for who in ("base", "adapter")}
            told.append({**run, **losses, "answers": shown, "unseen": event.get("unseen", True)})
    return told


def changed_values(adapter: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The values that were not the recipe's, as (name, the recipe's, the adapter's); empty if the recipe is gone."""
    try:
        usual = recipes.resolve(adapter["recipe"]).model_dump(mode="json")
    except RecipeError:
        return []
    used = {**dict.fromkeys(usual), **adapter["values"]}
    return [(k, usual[k], used[k]) for k in usual if used[k] != usual[k] and k not in ("about", "base_model")]


def questions(adapter: dict[str, Any]) -> list[dict[str, str]]:
    """Held-out questions of the adapter's data set: {"text", "system", "expected"}, what the data answers among them."""
    try:
        rows = islice(datasets.stream(store().dataset(adapter["dataset"])), READ)
        held = (row for row in rows if datasets.is_validation(row, adapter["values"]["validation_share"]))
        return list(islice(filter(None, map(_question, held)), QUESTIONS))
    except FileNotFoundError:
        return []


def target(name: str | None) -> dict[str, Any] | None:
    """What an alias may point at, in the words of a comparison; None for nothing, and for what has been deleted."""
    try:
        if not name:
            return None
        if "@" in name:
            return {**adapters.view(name), "name": name, "kind": "adapter", "href": f"/adapters/{name}"}
        card = exports.view(name)
        return {**card, "name": card["file"], "kind": "export", "href": f"/exports/{card['file']}"}
    except NotFound:
        return None


def warnings(alias: str, new: dict[str, Any]) -> list[str]:
    """What would not work if `alias` pointed at the target `new`."""
    settings = here().settings
    said = []
    gguf = new["kind"] == "export" and new["encoding"] not in NOT_SERVED
    served = registry.served_export(store(), settings.gguf_alias)
    if alias == settings.gguf_alias and not gguf:
        instead = f"the newest export, {served.file}" if served else "nothing"
        said.append(f"The GGUF server serves GGUF files only. With {alias} on {new['name']} it would serve {instead}.")
    elif gguf and alias != settings.gguf_alias and not (served and served.file == new["name"]):
        said.append(
            f"One GGUF file is served at a time, the one that {settings.gguf_alias} points at. "
            f"Requests for {alias} are refused until that is {new['name']}, too."
        )
    elif new["kind"] == "export" and not gguf:
        what = "a folder" if new["encoding"] == "merged" else "an adapter file"
        said.append(f"{new['name']} is {what} for other programs. Requests for {alias} would be refused.")
    if new["base_model"] != settings.base_model:
        said.append(f"It was made for {new['base_model']}, and {settings.base_model} is served here.")
    return said


def _dataset(reference: str) -> dict[str, Any] | None:
    try:
        return registry.dataset_card(store(), reference)
    except NotFound:
        return None


def _run(run_id: str) -> dict[str, Any] | None:
    try:
        return run_view.item(store(), run_id)
    except NotFound:
        return None


def _pointing(named: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [alias for alias in named if alias["target"] == name]


def _question(row: dict[str, Any]) -> dict[str, str] | None:
    messages = messages_of(row)
    asked = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
    if asked is None:
        return None
    before = [m["content"] for m in messages[:asked] if m["role"] in ("system", "developer")]
    after = next((m for m in messages[asked:] if m["role"] == "assistant"), {})
    text = messages[asked]["content"]
    return {"text": text, "system": "\n\n".join(before), "expected": after.get("content", "")}


def _asked(prompt: str) -> str:
    """The last question in a rendered prompt."""
    found = _MESSAGE.findall(prompt)
    return found[-1].strip() if found else prompt


def _said(answer: str) -> str:
    """The final message of an answer, or all of an answer that was cut off before it."""
    found = _FINAL.search(answer)
    return found[1].strip() if found else re.sub(r"<\|[a-z_]+\|>", " ", answer).strip()
