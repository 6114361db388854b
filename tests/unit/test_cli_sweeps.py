"""`tandem sweep` asks the API for a sweep and tells how its trials go."""

import pytest

from services.dashboard.api import models
from tests.unit import fake_tandem as fake

ID = "sweep-20260102-030405-3f2a"


def trial(number: int, **more) -> dict:
    values = {"learning_rate": 0.0002, "lora_rank": 16}
    told = {"number": number, "run": f"train-{number}", "values": values, "state": "succeeded", "pruned": False, "step": 100,
            "steps": 100, "validation_loss": 1.5, "reason": None, "result": None}  # fmt: skip
    return told | more


BEST = trial(1, validation_loss=1.25, result="shop@v1")
PRUNED = trial(2, state="cancelled", pruned=True, step=25, reason="Pruned at step 25: it is above the median.")
ITEM = {"id": ID, "created": fake.NOW, "name": "shop", "dataset": "shop@3f2a1b4c5d6e", "recipe_name": "standard",
        "searched": ["learning_rate", "lora_rank"], "state": "succeeded", "reason": None, "asked": 2, "done": 2, "pruned": 1,
        "best": BEST, "ended": fake.NOW}  # fmt: skip
SWEEP = ITEM | {
    "trials": [BEST, PRUNED],
    "importances": {"learning_rate": 0.9, "lora_rank": 0.1},
    "cancel_requested": False,
}


pytestmark = pytest.mark.usefixtures("person")


@pytest.fixture
def tandem():
    full = fake.full()
    full.routes |= {
        "POST /api/sweeps": (201, SWEEP | {"state": "queued", "trials": []}),
        f"GET /api/sweeps/{ID}": SWEEP,
        f"POST /api/sweeps/{ID}/cancel": SWEEP,
    }
    full.page("/api/sweeps", [ITEM])
    with fake.serve(full) as running:
        yield running


def test_the_fake_has_the_shape_of_the_dashboard():
    models.SweepItem.model_validate(ITEM)
    models.SweepTrial.model_validate(PRUNED)


def test_a_sweep_is_asked_for_and_followed_to_its_best(run, tandem):
    words = ("start", "shop", "--search", "learning_rate=1e-5..5e-4", "--search", "lora_rank", "--trials", "2")
    output = run("sweep", *words, "--set", "steps=50")
    assert tandem.last("POST").body == {
        "dataset": "shop", "overrides": {"steps": 50}, "trials": 2,
        "search": {"learning_rate": "1e-5..5e-4", "lora_rank": ""},
    }  # fmt: skip
    assert "trial 1 of 2 · learning_rate 0.0002, lora_rank 16 · validation loss 1.250" in output
    assert "Pruned at step 25" in output
    assert "Trial 1 is the best: validation loss 1.250" in output and "tandem chat --model shop@v1" in output


def test_a_sweep_that_failed_says_why(run, tandem):
    tandem.routes[f"GET /api/sweeps/{ID}"] = SWEEP | {
        "state": "failed",
        "reason": "3 trials in a row failed.",
        "best": None,
    }
    assert "3 trials in a row failed." in run("sweep", "follow", ID, code=1)


def test_sweeps_are_listed_shown_and_cancelled(run, tandem):
    assert ID in run("sweep") and "2/2" in run("sweep")
    output = run("sweep", "show", ID)
    for part in ("pruned", "25/100", "learning_rate 90 %", "train-2", "1 of them given up early"):
        assert part in output
    assert "the best so far is kept" in run("sweep", "cancel", ID)
    tandem.page("/api/sweeps", [])
    assert "tandem sweep start" in run("sweep")
