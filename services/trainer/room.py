"""Before a model goes onto a GPU that the inference server has, too: wait until that has given its memory back."""

import time

import httpx

from services.trainer.child import Context
from shared.gpus import gpus

PATIENCE_SECONDS = 120.0
ASK_SECONDS = 0.5
ANSWER_SECONDS = 5.0


def wait_for_room(context: Context, patience: float = PATIENCE_SECONDS) -> None:
    """Return when the GPU is free of the inference server, or after `patience` seconds with a warning.

    The server sees by the worker's file that this run needs the GPU; of several, a run has the first ones. Raises Stopped
    if the run is asked to stop."""
    mine = {gpu["uuid"] for gpu in gpus()[: context.ranks]}
    until, said = time.monotonic() + patience, False
    while mine and not _free(context, mine):
        context.check()
        if not said:
            context.log("Waiting for the inference server, which has the same GPU, to give its memory back.")
            said = True
        if time.monotonic() >= until:
            text = f"The inference server has not given its GPU memory back within {patience:g} s. The run goes on beside it."
            print(text, flush=True)
            return context.event("warning", text=text)
        time.sleep(ASK_SECONDS)
    return None


def _free(context: Context, mine: set[str]) -> bool:
    """Whether the inference server has none of these GPUs: it is not there, has others, or sleeps because of this run."""
    try:
        told = httpx.get(f"{context.settings.inference_url}/health", timeout=ANSWER_SECONDS, trust_env=False).json()
    except (httpx.ReadTimeout, httpx.PoolTimeout):  # it is there and busy
        return False
    except (httpx.HTTPError, ValueError):
        return True
    servers = told.get("replicas", [told])  # a router tells of each server behind it
    there = [one for one in servers if mine & {gpu["uuid"] for gpu in one.get("gpus", [])}]
    return all((one.get("status"), one.get("run")) == ("asleep", context.spec.id) for one in there)
