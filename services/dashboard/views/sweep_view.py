"""How a sweep is shown: how it stands in a sentence, and where in the range of each value its trials went well."""

import math
from typing import Any

from services.dashboard.views.verdict import Verdict
from shared.schemas import ENDED


def verdict(sweep: dict[str, Any]) -> Verdict:
    """The sentence at the head of a sweep's page."""
    best = f"{_best(sweep)} {_gain(sweep)}".strip()
    match sweep["state"]:
        case "queued":
            return Verdict("quiet", "Waiting", "The trainer begins its first trial as soon as it sees it.")
        case "failed":
            return Verdict(
                "bad", "Failed", f"{sweep['reason']} {best}".strip(), "Change what the reason names, then ask again."
            )
        case "cancelled":
            return Verdict("quiet", "Cancelled", f"After {sweep['done']} of {sweep['asked']} trials. {best}".strip())
        case "succeeded":
            return Verdict("good", "Done", best)
    if sweep["cancel_requested"]:
        return Verdict("busy", "Stopping", f"The trial in hand finishes its step, then the sweep ends. {best}".strip())
    number = min(sweep["done"] + 1, sweep["asked"])
    return Verdict("busy", f"Trial {number} of {sweep['asked']}", best or "The first trials are drawn at random.")


def scatters(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """For each value a picture of the trials that published: {"name", "ends", "dots"}, a dot being x and y from 0 to 1,
    the lowest loss at the bottom, with its trial. Nothing while there are fewer than two."""
    done = [
        trial for trial in sweep["trials"] if trial["state"] == "succeeded" and trial["validation_loss"] is not None
    ]
    losses = [trial["validation_loss"] for trial in done]
    if len(done) < 2:
        return []
    low, high = min(losses), max(losses)
    found = []
    for name, choice in sweep["spec"]["search"].items():
        dots = [
            {
                "x": _place(choice, t["values"][name]),
                "y": (t["validation_loss"] - low) / ((high - low) or 1),
                "trial": t,
            }
            for t in done
        ]
        ends = (choice[0], choice[-1]) if isinstance(choice, list) else (choice["low"], choice["high"])
        found.append({"name": name, "ends": [value(end) for end in ends], "dots": dots})
    return found


def value(given: Any) -> str:
    """A value as people write it: `0.00012` -> `1.2e-4`, True -> `on`."""
    if isinstance(given, bool):
        return "on" if given else "off"
    if isinstance(given, float) and given and abs(given) < 0.001:
        digits, _, exponent = f"{given:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{given:g}" if isinstance(given, float) else str(given)


def choice(given: dict[str, Any] | list[Any]) -> str:
    """What may be chosen, in words: `1e-5 to 5e-4`, `8, 16 or 32`."""
    if isinstance(given, dict):
        return f"{value(given['low'])} to {value(given['high'])}{', even by factors' if given['log'] else ''}"
    return f"{', '.join(value(item) for item in given[:-1])} or {value(given[-1])}"


def _place(choice: dict[str, Any] | list[Any], given: Any) -> float:
    if isinstance(choice, list):
        return choice.index(given) / (len(choice) - 1)
    low, high = choice["low"], choice["high"]
    if choice["log"]:
        low, high, given = math.log(low), math.log(high), math.log(given)
    return min(1.0, max(0.0, (given - low) / (high - low)))


def _best(sweep: dict[str, Any]) -> str:
    best = sweep["best"]
    if not best:
        return ""
    so_far = "" if sweep["state"] in ENDED else " so far"
    return f"Trial {best['number']} is the best{so_far}: its validation loss is {best['validation_loss']:.3f}."


def _gain(sweep: dict[str, Any]) -> str:
    """What searching gained over the recipe's own values, which the first trial has when they may be chosen."""
    first = sweep["trials"][0] if sweep["trials"] else None
    if not sweep["best"] or not first or first["state"] != "succeeded":
        return ""
    if any(sweep["spec"]["recipe"][name] != given for name, given in first["values"].items()):
        return ""
    if sweep["best"]["number"] == 1:
        return "These are the recipe's own values."
    return f"The recipe's own values gave {first['validation_loss']:.3f}."
