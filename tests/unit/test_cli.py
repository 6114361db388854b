"""Each command of `tandem` asks the API for the right thing and prints what a person needs."""

import json
import re

import pytest

from services.cli import doctor
from services.dashboard.api import dataset_models, models
from tests.unit import fake_tandem as fake

RUN_ID = str(fake.RUN["id"])


pytestmark = pytest.mark.usefixtures("person")


def test_the_fake_has_the_shapes_of_the_dashboard():
    dataset_models.DatasetCard.model_validate(fake.DATASET)
    models.Run.model_validate(fake.RUN)
    models.Export.model_validate(fake.EXPORT)
    models.Alias.model_validate(fake.ALIAS)
    models.System.model_validate(fake.SYSTEM)
    dataset_models.TokenView.model_validate(fake.TOKENS)


@pytest.mark.parametrize(
    "words",
    [["datasets"], ["jobs"], ["adapters"], ["exports"], ["alias"], ["keys"], ["recipes"], ["datasets", "show", "shop"],
     ["jobs", "show", RUN_ID], ["adapters", "show", "shop@v1"], ["recipes", "standard"], ["alias", "history", "production"],
     ["datasets", "rejected", "shop"], ["datasets", "tokens", "shop"], ["doctor"]],
)  # fmt: skip
def test_what_lists_or_shows_prints_json_for_other_programs(run, words, monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda reached: [])
    assert json.loads(run(*words, "--json"))


@pytest.mark.parametrize(
    ("words", "path", "hint"),
    [(["datasets"], "/api/datasets", "datasets add"), (["jobs"], "/api/runs", "tandem train"),
     (["adapters"], "/api/adapters", "tandem train"), (["exports"], "/api/exports", "tandem export"),
     (["alias"], "/api/aliases", "alias set"), (["keys"], "/api/keys", "keys create")],
)  # fmt: skip
def test_an_empty_list_says_what_to_do_next(run, tandem, words, path, hint):
    tandem.page(path, [])
    assert hint in run(*words)


def test_lists_are_read_page_by_page(run, tandem):
    def page(request):
        offset = int(request.query.get("offset", 0))
        return {"items": [fake.RUN_ITEM | {"id": f"run-{offset}"}], "total": 3, "next": "more" if offset < 2 else None}

    tandem.routes["GET /api/runs"] = page
    assert re.findall(r"run-\d", run("jobs")) == ["run-0", "run-1", "run-2"]


# ---- data sets


def test_datasets_lists_rows_tokens_and_reasoning(run):
    output = run("datasets")
    for part in ("shop@3f2a1b4c5d6e", "1,200", "301,000", "75 %", "47.1 KiB", "d ago"):
        assert part in output


def test_a_data_sets_card_shows_the_histogram_and_what_was_rejected(run):
    output = run("datasets", "show", "shop")
    assert "1,200 accepted, 10 rejected, 3 duplicate" in output
    assert re.search(r"128–255 █+ +700 \(58 %\)", output)
    assert "en 90 %, de 10 %" in output
    assert "7 rows with the message field 'mood'" in output
    assert "tandem datasets rejected shop@3f2a1b4c5d6e" in output


def test_adding_a_file_sends_its_bytes_and_its_name(run, tandem, tmp_path):
    file = tmp_path / "my shop.jsonl"
    file.write_bytes(b"x" * 3_000_000)
    output = run("datasets", "add", str(file), "--name", "shop")
    sent = tandem.last("POST")
    assert sent.query == {"filename": "my shop.jsonl", "name": "shop"}
    assert sent.raw == file.read_bytes()
    assert "tandem train shop@3f2a1b4c5d6e" in output


def test_a_refused_file_names_the_rejected_rows(run, tandem, tmp_path):
    details = [{"line": 3, "reason": "message 1 has no 'role'", "text": "{}"}]
    error = {"message": "No row of shop.jsonl can be used.", "type": "refused", "details": details}
    tandem.routes["POST /api/datasets"] = (422, {"error": error})
    (tmp_path / "shop.jsonl").write_text("{}")
    said = run("datasets", "add", str(tmp_path / "shop.jsonl"), code=1)
    assert said.split("\n")[:2] == ["No row of shop.jsonl can be used.", "  line 3: message 1 has no 'role'"]


def test_a_file_that_is_not_there_is_named(run):
    assert "There is no file 'none.jsonl'." in run("datasets", "add", "none.jsonl", code=1)


def test_rejected_rows_come_with_their_reason(run):
    assert re.search(r"7 +no assistant message +\{\"messages\"", run("datasets", "rejected", "shop"))


def test_learned_tokens_stand_out_without_colours_too(run, tandem):
    output = run("datasets", "tokens", "shop", "--row", "0", "--policy", "final")
    assert "1 of 2 tokens are learned (final)" in output
    assert "Hi»35 euros«" in output
    assert tandem.last("GET").query == {"row": "0", "policy": "final"}


def test_mixing_and_importing_ask_for_what_was_said(run, tandem):
    run("datasets", "mix", "a", "b", "--share", ".6", "--name", "both")
    assert tandem.last("POST").body == {"reasoning": "a", "direct": "b", "share": 0.6, "seed": 0, "name": "both"}
    run("datasets", "import", "owner/rows", "--split", "test")
    assert tandem.last("POST").body == {"repository": "owner/rows", "split": "test"}


# ---- jobs


def test_training_sends_overrides_as_values_and_follows(run, tandem):
    output = run(
        "train", "shop", "--set", "lora_rank=8", "--set", "scheduler=cosine", "--set", "steps=null", "--name", "s"
    )
    assert tandem.last("POST").body == {
        "kind": "train", "dataset": "shop", "name": "s",
        "overrides": {"lora_rank": 8, "scheduler": "cosine", "steps": None},
    }  # fmt: skip
    assert "step 4/4 · loss 2.500 → 0.750 · validation 1.500 · 1,000 tok/s" in output
    assert "succeeded in 2 min 00 s: shop@v1" in output
    assert "tandem chat --model shop@v1" in output


def test_training_without_following_says_how_to_watch(run, tandem):
    assert f"tandem logs {RUN_ID} --follow" in run("train", "shop", "--no-follow")
    assert not [request for request in tandem.requests if request.path.endswith("stream")]


def test_an_override_without_a_value_is_explained(run):
    assert "--set lora_rank=8" in run("train", "shop", "--set", "lora_rank", code=1)


def test_a_failed_training_ends_with_its_reason_and_the_way_out(run, tandem):
    tandem.routes[f"GET /api/runs/{RUN_ID}"] = fake.RUN | {
        "state": "failed",
        "reason": "The GPU is full.",
        "ended": fake.NOW,
    }
    said = run("train", "shop", code=1)
    assert "failed: The GPU is full." in said
    assert f"tandem jobs resume {RUN_ID}" in said


def test_jobs_are_listed_with_state_step_and_loss(run, tandem):
    assert re.search(rf"{RUN_ID} +running +shop@3f2a1b4c5d6e +2/4 +1\.250 ", run("jobs", "--state", "running"))
    assert tandem.last("GET").query["state"] == "running"


def test_a_job_shows_what_was_asked_and_what_was_proven(run):
    output = run("jobs", "show", RUN_ID)
    for part in ("succeeded", "shop@v1", "step 2 (2.0 KiB)", "lora rank", "kl  0.25", "took"):
        assert part in output


def test_jobs_are_cancelled_resumed_and_cloned(run, tandem):
    assert "stops after its current step" in run("jobs", "cancel", RUN_ID)
    assert f"Job {RUN_ID} is queued." in run("jobs", "resume", RUN_ID)
    run("jobs", "clone", RUN_ID, "--set", "seed=1")
    assert tandem.last("POST").body == {"overrides": {"seed": 1}}


def test_logs_tell_the_story_and_raw_what_was_printed(run):
    story = run("logs", RUN_ID)
    assert re.search(r"\d\d:\d\d:\d\d  running on gpu0", story)
    assert "step 1 · loss 2.5 · tok/s 900" in story
    assert "succeeded: shop@v1" in story
    assert run("logs", RUN_ID, "--follow") == story
    assert run("logs", RUN_ID, "--raw", "--follow") == "step 1\nstep 2\n"


def test_recipes_are_listed_and_one_is_shown_with_its_comments(run):
    assert re.search(r"standard +100 +16 +1,024 +0\.0002 +A hundred steps", run("recipes"))
    assert "# a good middle" in run("recipes", "standard")


def test_fetching_evaluating_and_exporting_are_jobs(run, tandem):
    run("fetch", "owner/rows", "--dataset", "--no-follow")
    assert tandem.last("POST").body == {"kind": "fetch", "repository": "owner/rows", "repository_type": "dataset"}
    for action in ("check", "repair", "remove"):
        run("fetch", "owner/model", f"--{action}", "--no-follow")
        asked = {"kind": "fetch", "repository": "owner/model", "repository_type": "model", "action": action}
        assert tandem.last("POST").body == asked
    assert "choose one of" in run("fetch", "owner/model", "--check", "--remove", code=2)
    run("evaluate", "shop@v1", "--dataset", "other", "--no-follow")
    assert tandem.last("POST").body == {"kind": "evaluate", "adapter": "shop@v1", "dataset": "other"}
    run("export", "production")
    assert tandem.last("POST").body == {"kind": "export", "adapter": "production", "encoding": "MXFP4"}


# ---- what was made


def test_adapters_show_how_far_the_loss_fell(run):
    assert re.search(r"shop@v1 +2\.500 → 0\.610 +0\.700 +shop@\w+ +production", run("adapters"))
    card = run("adapters", "show", "shop@v1")
    assert "openai/gpt-oss-20b at 6cee5e81ee83" in card
    assert "shop-v1-MXFP4.gguf" in card
    assert "top1 changed  0.4" in card


def test_aliases_move_and_move_back(run, tandem):
    assert re.search(r"production +shop@v1 +\d+ d ago +shop@v0", run("alias"))
    assert run("alias", "set", "production", "shop@v1") == "production now points at shop@v1; before, at shop@v0.\n"
    assert tandem.last("PUT").body == {"target": "shop@v1"}
    assert run("alias", "undo", "production") == "production points at shop@v0 again.\n"
    assert "tandem alias undo production" in run("alias", "rm", "production")
    assert run("alias", "history", "production").index("shop@v1") < 60
    assert "There are: production." in run("alias", "history", "staging", code=1)


# ---- the queue, an early end, what is taken away


def test_a_dry_run_says_what_training_would_take_and_queues_nothing(run, tandem):
    memory = {"weights": 13 << 30, "total": 16 << 30}
    tandem.routes["POST /api/runs/estimate"] = {
        "steps": 100, "epochs": 2.5, "examples": 640, "tokens_per_step": 4000.0, "seconds": 600.0, "memory": memory,
        "seconds_from": "700 tokens a second in train-1", "memory_available": 24 << 30, "notes": ["Rows are cut."],
    }  # fmt: skip
    output = run("train", "shop", "--dry-run", "--set", "steps=100")
    for words in ("100 of 4,000 tokens", "each seen 2.5 times", "10 min", "16.0 GiB of 24.0 GiB", "Rows are cut."):
        assert words in output
    assert [request.path for request in tandem.requests] == ["/api/runs/estimate"]


def test_a_training_is_stopped_early(run, tandem):
    tandem.routes[f"POST /api/runs/{RUN_ID}/stop"] = fake.RUN
    assert "publishes the best" in run("jobs", "stop", RUN_ID)


def test_the_queue_is_shown_in_its_order_and_changed(run, tandem):
    items = [fake.RUN_ITEM | {"id": f"train-{n}", "position": n} for n in (1, 2)]
    tandem.page("/api/queue", items)
    assert re.search(r"1 +train-1.*\n.*2 +train-2", run("jobs", "queue"))
    tandem.routes["POST /api/queue/train-2/move"] = {"items": items[::-1], "total": 2, "next": None}
    run("jobs", "move", "train-2")
    assert tandem.last("POST").body == {"to": 1}


@pytest.mark.parametrize(
    ("words", "path"),
    [(["datasets", "rm", "shop@1"], "/api/datasets/shop@1"), (["adapters", "rm", "shop@v1"], "/api/adapters/shop@v1"),
     (["exports", "rm", "shop.gguf"], "/api/exports/shop.gguf")],
)  # fmt: skip
def test_what_is_deleted_is_named_and_a_refusal_is_told(run, tandem, words, path):
    tandem.routes[f"DELETE {path}"] = (204, None)
    assert "is deleted" in run(*words)
    tandem.routes[f"DELETE {path}"] = (
        409,
        {"error": {"message": "The alias 'production' points at it.", "type": "conflict"}},
    )
    assert "production" in run(*words, code=1)
