"""Is a run going well? One sentence from its curve, and what is wrong with it, each by a rule that stands here.

The trainer warns of what it sees (`warning` events); the rules below see what it does not tell. A loss is compared as the
mean of a few points (see `told`), because single points of it jump."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from services.dashboard.filters import span
from services.dashboard.views.told import Told

JUDGED_AFTER = 20  # points; before, a curve says little
FALLS = 0.03  # less than this share of its start is not falling
JUMP = 1.5  # a loss so many times its lowest mean has jumped
GAP = 1.10  # a validation loss so many times its lowest one says that rows are learned by heart
SLOW = 0.6  # of the speed at first


@dataclass(frozen=True)
class Verdict:
    """How a run stands, in a sentence. `what` heads it; `so` is what to do, if anything is to be done."""

    tone: Literal["good", "busy", "bad", "quiet"]
    what: str
    text: str
    so: str = ""


def verdict(run: dict[str, Any], story: Told) -> Verdict:
    """The sentence at the head of a run's page. `run` is `run_view.detail`."""
    match run["state"]:
        case "queued":
            return Verdict("quiet", "Waiting", _waits(run, story))
        case "failed":
            return Verdict("bad", "Failed", run["reason"] or "No reason was recorded.", _way_out(run, story))
        case "cancelled":
            return Verdict("quiet", "Cancelled", _cancelled(run), _resume(run))
        case "succeeded":
            return _done(run, story)
    if run["cancel_requested"]:
        return Verdict("busy", "Stopping", "It finishes its step and writes a checkpoint, then it is cancelled.")
    if run["stop_requested"]:
        return Verdict("busy", "Stopping early", "It finishes its step, validates, and publishes the best it has.")
    if run["kind"] != "train" or not story.points:
        stage = story.last.get("log", {}).get("text") or "The process starts."
        return Verdict("busy", "Working" if run["kind"] != "train" else "Getting ready", stage)
    return _running(run, story)


def _running(run: dict[str, Any], story: Told) -> Verdict:
    losses = _losses(story)
    if run["steps"] and run["step"] >= run["steps"]:
        return Verdict("busy", "Almost done", f"{losses} Validating, proving and publishing.")
    if story.points < JUDGED_AFTER:
        return Verdict("busy", "Just started", f"{losses} A curve says something after {JUDGED_AFTER} points.")
    found = troubles(run, story)
    if found:
        return Verdict("bad" if found[0]["kind"] in ("flat", "jump") else "busy", found[0]["head"], losses)
    return Verdict("good", "Going well", losses, halved(run, story))


def _losses(story: Told) -> str:
    start, now = story.start, story.now
    if start is None or now is None:
        return ""
    text = f"Loss {_loss(now)}"
    if story.points >= 4:
        share = (start - now) / start if start else 0
        text += f", {'down' if share >= 0 else 'up'} {abs(share):.0%} from {_loss(start)}".replace("%", " %")
    if story.validations:
        text += f"; validation {_loss(story.validations[-1][1])}"
    return f"{text}."


def _done(run: dict[str, Any], story: Told) -> Verdict:
    if run["kind"] == "train":
        early = (run["proof"] or {}).get("stopped_early")
        text = " ".join(filter(None, [_losses(story), run["reason"] or (early and f"Stopped early. {early}")]))
        found = [t for t in troubles(run, story) if t["kind"] in ("flat", "jump")]
        if found:
            return Verdict("busy", "Done, but look at the curve", text, found[0]["text"])
        return Verdict("good", "Done", text, halved(run, story))
    if run["kind"] == "evaluate" and (found := run["evaluation"]):
        base, adapter = found["base"]["loss"], found["adapter"]["loss"]
        better = adapter < base
        text = f"Loss {_loss(base)} for the base, {_loss(adapter)} with the adapter."
        return Verdict(
            "good" if better else "bad", "The adapter is better" if better else "The adapter is not better", text
        )
    if run["kind"] == "benchmark":
        return _measured(run)
    parity = story.last.get("parity")
    if run["kind"] == "export" and parity:
        text = f"The export chooses the adapter's token in {parity['top1']:.1%} of the cases".replace("%", " %")
        return Verdict("good", "Done", f"{text}, on {parity['prompts']} prompts.")
    return Verdict("good", "Done", "")


def _measured(run: dict[str, Any]) -> Verdict:
    away = list(dict.fromkeys(row["model"] for row in run["speed"] if row["error"]))
    if away:
        said = f"{run['result']}. Of {' and '.join(away)} not every request was answered: the table has the reason."
        return Verdict("busy", "Done, but not all answered", said, "Put right what it names, then run it again.")
    return Verdict("good", "Done", f"{run['result']}.")


def halved(run: dict[str, Any], story: Told) -> str:
    """What became of a run that ran out of memory and went on; empty of one that did not."""
    if not story.halved:
        return ""
    last, times = story.last["halved"], "" if story.halved == 1 else f" {story.halved} times"
    unfilled = ", and with fill_memory off" if run["spec"]["recipe"]["fill_memory"] else ""
    return (
        f"It ran out of memory{times} and went on from its last checkpoint with batch_size {last['batch_size']} and "
        f"accumulation {last['accumulation']}: as many examples a step as before, so it learns the same. The next run is "
        f"spared that if it begins with these values{unfilled}."
    )


def _waits(run: dict[str, Any], story: Told) -> str:
    """Why it waits: an attempt that ended unfinished has said so."""
    last = story.last.get("status", {})
    said = last.get("reason") if last.get("state") == "queued" else None
    return said or ("It waits to be resumed." if run["attempt"] else "It has not started yet.")


def _cancelled(run: dict[str, Any]) -> str:
    return run["reason"] or (f"It stopped after step {run['step']:,}." if run["step"] else "It had not begun.")


def _resume(run: dict[str, Any]) -> str:
    if run["checkpoints"]:
        return f"Resume goes on from step {run['checkpoints'][-1]['step']:,}."
    return "Resume starts it from the beginning; there is no checkpoint."


def _way_out(run: dict[str, Any], story: Told) -> str:
    reason = (run["reason"] or "").lower()
    if "the nearest that fits" in reason:
        return "Choose Change and run again: the form has a button that sets these values."
    if "nothing smaller fits" in reason:
        return "It takes a GPU with more memory, or more of this one: System shows what else holds it."
    if "memory" in reason and run["kind"] == "train":
        smaller = (
            "max_length" if story.last.get("micro_batch", {}).get("batch_size") == 1 else "batch_size or max_length"
        )
        return f"Train again with a smaller {smaller}, or with the recipe memory_efficient."
    if "the loss is" in reason:
        return "Train again with half the learning rate."
    return _resume(run) if run["kind"] == "train" else "Put right what the reason names, then run it again."


def troubles(run: dict[str, Any], story: Told) -> list[dict[str, str]]:
    """What is wrong with a training run: the trainer's own warnings, and what the rules of this file find.

    Each is {"kind", "head", "text"}; the worst comes first."""
    found = []
    start, now, rate = story.start, story.now, ((run["spec"].get("recipe") or {}).get("learning_rate") or 0)
    if story.points >= JUDGED_AFTER and start and now is not None:
        if story.lowest is not None and now > JUMP * story.lowest and now > story.lowest + 0.1:
            found.append(_trouble("jump", "The loss has jumped up", _JUMPED.format(story.lowest, now, rate)))
        elif now > start * (1 - FALLS):
            found.append(_trouble("flat", "The loss is not falling", _FLAT.format(start, now, rate)))
    said = {warning.get("kind") for warning in story.warnings}
    if len(story.validations) > 1 and not said & {"validation", "overfitting"}:
        best, last = min(loss for _, loss in story.validations), story.validations[-1][1]
        if last > GAP * best:
            found.append(_trouble("overfitting", "It begins to learn rows by heart", _OVERFITS.format(best, last)))
    heads = {"overfitting": "It may be reciting its rows", "validation": "The validation loss no longer falls"}
    for warning in story.warnings:
        head = heads.get(warning.get("kind", ""), "The trainer warns")
        found.append(_trouble(warning.get("kind", "warning"), head, warning["text"]))
    if len(story.speeds) == len(story.speed) == 10 and fmean(story.speed) < SLOW * fmean(story.speeds):
        found.append(_trouble("slow", "It has become slow", _SLOW.format(fmean(story.speed), fmean(story.speeds))))
    return found


def left(run: dict[str, Any], story: Told) -> str:
    """The time that is left of a running run, in words."""
    seconds = seconds_left(run, story)
    return "–" if seconds is None else f"about {span(seconds)}"


def seconds_left(run: dict[str, Any], story: Told) -> float | None:
    """Seconds until the last step of a running run; None if nothing tells them."""
    seconds, steps = story.step_seconds, run["steps"]
    if run["state"] != "running" or seconds is None or not steps:
        return None
    return max(0.0, seconds * (steps - story.paces[-1][1]))


_FLAT = (
    "It was {0:.3f} at the start and is {1:.3f}. Raise learning_rate (now {2:g}) or lora_rank if it stays so, and look "
    "whether the rows have an answer that can be learned."
)
_JUMPED = (
    "It had come down to {0:.3f} and is {1:.3f}. learning_rate ({2:g}) is likely too high: halve it and train again."
)
_OVERFITS = (
    "The validation loss was {0:.3f} at best and is {1:.3f}, while the training loss falls on. Stop early and keep the best, "
    "or train again with fewer steps, a lower lora_rank or more rows."
)
_SLOW = "{0:,.0f} tokens per second now, {1:,.0f} at first. Something else may be using the machine: look under System."


def _trouble(kind: str, head: str, text: str) -> dict[str, str]:
    return {"kind": kind, "head": head, "text": text}


def _loss(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
