"""Sweeps through the API and the pages, and one with the real worker on the tiny base."""

import json
from pathlib import Path

import pytest
from celery import Celery

from shared import registry, runs, sweeps
from shared.schemas import ENDED
from shared.settings import Settings
from shared.store import Store
from shared.sweep_schemas import SweepJob, SweepStatus
from tests.conftest import wait_for
from tests.integration.api import Api
from tests.integration.conftest import Worker
from tests.unit.sweep_bench import Bench

ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n}+1?"}, {"role": "assistant", "content": str(n + 1)}]})
    + "\n"
    for n in range(40)
).encode()
SHORT = {"steps": 4, "evaluate_every": 2, "save_every": 4, "batch_size": 2, "validation_share": 0.1}


@pytest.fixture
def api(settings: Settings) -> Api:
    api = Api(settings)
    api.upload(ROWS)
    return api


def ask(**more) -> dict:
    return {"dataset": "chats", "recipe": "tiny", "trials": 3, **more}


def test_a_sweep_is_resolved_written_and_waits_for_the_trainer(api: Api) -> None:
    body = ask(search={"learning_rate": "1e-3..1e-2", "lora_rank": [8, 16]}, name="best")
    sweep = api("POST", "/api/sweeps", 201, json=body).json
    assert (sweep["state"], sweep["asked"], sweep["done"], sweep["best"]) == ("queued", 3, 0, None)
    spec = sweeps.read_spec(api.store, sweep["id"])
    assert spec.job.dataset.startswith("chats@") and spec.recipe.base_model == api.settings.base_model
    assert spec.search["learning_rate"].log and spec.search["lora_rank"] == [8, 16]
    assert api("GET", "/api/sweeps", 200).json["total"] == 1 and runs.ids(api.store) == []


def test_a_recipe_that_validates_at_its_end_only_is_made_to_validate_on_the_way(api: Api) -> None:
    sweep = api("POST", "/api/sweeps", 201, json=ask(overrides={"evaluate_every": None})).json
    assert sweep["spec"]["recipe"]["evaluate_every"] == sweep["spec"]["job"]["overrides"]["evaluate_every"] == 8


@pytest.mark.parametrize(
    ("name", "row", "steps"),  # the steps that its 180 training rows take
    [
        ("preferences", {"prompt": "{0}+1?", "chosen": "It is {1}.", "rejected": "{0}?"}, 11),
        ("text", {"text": "{0} and one are {1}. "}, 1),  # packed into few rows
    ],
)
def test_pairs_and_texts_are_searched_with_a_recipe_of_their_own_kind(
    api: Api, name: str, row: dict[str, str], steps: int
) -> None:
    lines = ({key: text.format(n, n + 1) for key, text in row.items()} for n in range(200))
    api.upload("".join(json.dumps(line) + "\n" for line in lines).encode(), f"filename={name}.jsonl")
    asked = {"dataset": name, "trials": 3, "overrides": {"evaluate_every": None}}
    sweep = api("POST", "/api/sweeps", 201, json=asked).json
    assert sweep["recipe_name"] == name
    assert sweep["spec"]["recipe"]["evaluate_every"] == max(1, steps // sweeps.VALIDATIONS)
    said = api("POST", "/api/sweeps", 400, json={**asked, "overrides": {"validation_share": 1e-9}}).json["error"]
    assert f"no row of {name}@" in said["message"]
    said = api("POST", "/api/sweeps", 400, json={**asked, "recipe": "standard"}).json["error"]
    assert f"learns from conversations by the method sft, and the data set {name}@" in said["message"]


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ({"trials": 1}, 400, "A sweep compares 2 to 500 trials, and 1 were asked for."),
        ({"search": {"lora_rnk": "8, 16"}}, 400, "Did you mean 'lora_rank'?"),
        ({"search": {"lora_rank": "8..999"}}, 400, "lora_rank cannot be 999"),
        ({"search": {"lora_rank": {"low": 16, "high": 8}}}, 422, "16 is not below 8"),
        ({"overrides": {"validation_share": 0}}, 400, "no row is held back. Set it to 0.1, say."),
        ({"overrides": {"validation_share": 1e-9}}, 400, "no row of chats@"),
        ({"dataset": "none"}, 404, "There is no data set 'none'."),
        ({"recipe": "none"}, 400, "There is no recipe 'none'."),
        ({"name": "No Name"}, 400, "cannot be a"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_before_anything_runs(api: Api, more: dict, status: int, said: str) -> None:
    assert said in api("POST", "/api/sweeps", status, json=ask(**more)).json["error"]["message"]
    assert sweeps.ids(api.store) == []


def test_a_data_set_cannot_be_deleted_while_a_sweep_has_trials_of_it_before_it(api: Api) -> None:
    sweep = api("POST", "/api/sweeps", 201, json=ask()).json
    said = api("DELETE", "/api/datasets/chats", 409).json["error"]
    assert said["details"] == [sweep["id"]] and f"is used by {sweep['id']}" in said["message"]
    sweeps.write_status(api.store, sweep["id"], SweepStatus(state="cancelled"))
    api("DELETE", "/api/datasets/chats", 204)


def test_a_sweep_that_waits_is_cancelled_at_once_and_deleted_when_its_trainer_knows(api: Api, monkeypatch) -> None:
    bench = Bench(api.store, monkeypatch)
    assert api("POST", "/api/sweeps/sweep-1/cancel", 200).json["state"] == "cancelled"
    api("POST", "/api/sweeps/sweep-1/cancel", 409)
    api("DELETE", "/api/sweeps/sweep-1", 409)
    bench.advance()
    api("DELETE", "/api/sweeps/sweep-1", 204)
    api("GET", "/api/sweeps/sweep-1", 404)


def test_the_pages_show_what_was_tried_and_what_is_best(api: Api, monkeypatch) -> None:
    assert "No sweep yet" in api("GET", "/runs/sweeps", 200).text
    bench = Bench(api.store, monkeypatch, loss=lambda values: values["learning_rate"] + 1)
    page = api("GET", "/runs/sweeps/sweep-1", 200).text
    assert "The trainer begins its first trial" in page and "None yet." in page
    status = bench.to_its_end()
    page = api("GET", "/runs/sweeps/sweep-1", 200).text
    assert f"Trial {status.best} is the best" in page and "The recipe&#39;s own values gave 1.006." in page
    assert page.count("not the best, so not kept") == 2
    assert f'href="/chat?model=best%40v{status.best}"' in page
    assert ">trial 2</a>" in api("GET", "/runs", 200).text
    run = status.trials[1].run
    assert 'href="/runs/sweeps/sweep-1"' in api("GET", f"/runs/{run}", 200).text
    assert "3 / 3" in api("GET", "/runs/sweeps?q=best", 200).text
    assert "No sweep is like that" in api("GET", "/runs/sweeps?q=other", 200).text


def test_the_form_offers_what_is_usual_for_the_recipe(api: Api) -> None:
    page = api("GET", "/runs/sweeps/new?recipe=execution-plan", 200).text
    assert 'name="search.learning_rate" value="1e-05..0.0005"' in page and 'name="search.epochs"' in page
    assert 'name="search.epochs"' not in api("GET", "/runs/sweeps/new?recipe=standard", 200).text


@pytest.mark.slow
def test_a_hopeless_trial_is_stopped_by_its_worker_and_publishes_nothing(
    settings: Settings, store: Store, workshop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {**SHORT, "steps": 300, "evaluate_every": 30, "save_every": 300, "base_model": settings.base_model}
    bench = Bench(store, monkeypatch, trials=5, dataset=workshop, overrides=overrides)
    for loss in (0.001, 0.002, 0.003, 0.004):  # what no trial reaches
        bench.advance()
        [run] = bench.waiting()
        bench.validated(run, *[loss] * 9, steps=300)
        bench.succeed(run, loss)
    worker = Worker(settings, tmp_path / "worker.log")
    worker.start()
    try:
        wait_for(lambda: sweeps.read_status(store, "sweep-1").state in ENDED, 150, "the sweep ends")
    finally:
        worker.stop()
    status = sweeps.read_status(store, "sweep-1")
    last = status.trials[4]
    assert (status.state, status.best, last.state, last.pruned) == ("succeeded", 1, "cancelled", True)
    assert last.step < 300 and "above the median 0.0" in str(last.reason)
    assert [card.run for card in registry.adapters(store)] == [status.trials[0].run]


@pytest.mark.slow
def test_a_sweep_goes_on_over_a_killed_worker_and_keeps_its_best(
    settings: Settings, store: Store, celery: Celery, worker: Worker, workshop: str
) -> None:
    asked = SweepJob(dataset=workshop, recipe="tiny", name="best", trials=3, overrides=SHORT)
    sweep_id = sweeps.submit(settings, store, asked).id
    second = sweeps.run_id(sweep_id, 2)
    wait_for(
        lambda: runs.exists(store, second) and runs.read_status(store, second).step, 150, "the second trial trains"
    )
    worker.kill()
    worker.start()
    wait_for(lambda: sweeps.read_status(store, sweep_id).state in ENDED, 150, "the sweep ends")
    status = sweeps.read_status(store, sweep_id)
    assert status.state == "succeeded" and [trial.state for trial in status.trials] == ["succeeded"] * 3
    losses = {trial.number: trial.validation_loss for trial in status.trials}
    assert status.best == min(losses, key=losses.get)
    [card] = registry.adapters(store)
    best = status.trials[status.best - 1]
    assert (card.reference, card.run, card.validation_loss) == (best.result, best.run, best.validation_loss)
    assert card.values.learning_rate == best.values["learning_rate"]
