"""Who may use `tandem`, what it says when something is wrong, and what the doctor sees."""

import re
import stat

import pytest
from typer.testing import CliRunner

from services.cli import doctor, keyfile
from services.cli.main import app
from tests.unit import fake_tandem as fake

pytestmark = pytest.mark.usefixtures("person")


# ---- keys


def test_a_key_is_printed_alone_so_that_it_can_be_piped(run):
    assert run("keys", "create", "laptop") == "tdm_new\n"
    assert "a1" in run("keys")
    assert run("keys", "revoke", "a1") == "Key a1 is revoked.\n"


def test_login_stores_a_valid_key_for_its_owner_only(run):
    assert "accepts the key" in run("login", fake.KEY, key=None)
    assert stat.S_IMODE(keyfile.home_key().stat().st_mode) == 0o600
    assert "shop@" in run("datasets", key=None)


def test_login_does_not_store_a_wrong_key(run):
    assert "does not accept this key" in run("login", "tdm_wrong", key=None, code=1)
    assert not keyfile.home_key().exists()


def test_the_key_of_a_local_stack_is_found_from_a_folder_below(run, person):
    (person / ".local").mkdir()
    (person / ".local" / "key").write_text(fake.KEY + "\n")
    assert "shop@" in run("datasets", key=None)


def test_without_a_key_it_says_how_to_get_one(run):
    said = run("datasets", key=None, code=1)
    assert "wants a key" in said
    assert "tandem login KEY" in said


# ---- errors


def test_nothing_that_answers_is_one_sentence_with_the_way_out():
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "jobs"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Nothing answers at http://127.0.0.1:9. Is the stack running? "
        "Start it with `docker compose up` or `make demo`.\n"
    )


@pytest.mark.parametrize(
    ("reply", "said"),
    [((404, {"error": {"message": "There is no run 'x'. There are: a, b.", "type": "not_found"}}), "There is no run 'x'. There are: a, b."),
     ((502, "<h1>Bad Gateway</h1>"), "the service behind it does not (502)"),
     ((413, "<h1>too large</h1>"), "larger than the server takes"),
     ((200, "<h1>Welcome</h1>"), "does not look like Tandem"),
     ((503, {"error": {"message": "The queue does not answer.", "type": "queue_unreachable", "details": ["train-1"]}}), "train-1")],
)  # fmt: skip
def test_errors_are_shown_as_what_the_server_says(run, tandem, reply, said):
    tandem.routes["GET /api/runs/x"] = reply
    assert said in run("jobs", "show", "x", code=1)


def test_what_a_file_or_a_name_holds_cannot_move_the_cursor(run, tandem):
    tandem.page("/api/datasets/shop/rejected", [{"line": 1, "reason": "\x1b[2Jgone", "text": "[red]x[/red]"}])
    output = run("datasets", "rejected", "shop")
    assert "\x1b" not in output
    assert "[red]x[/red]" in output


# ---- doctor


def test_the_doctor_says_what_is_wrong_and_the_way_out(run, tandem, monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda reached: [doctor.Check("docker", "warn", "not found", "install it")])
    output = run("doctor")
    assert re.search(r"ok +key +accepted", output)
    assert re.search(r"warn +inference +starting: loads the base model +docker compose logs inference", output)
    assert re.search(r"warn +llama +down: no export yet", output)
    assert re.search(r"ok +gpus +RTX 3090", output)
    tandem.routes["GET /api/system"] = fake.SYSTEM | {"base_model_cached": False}
    output = CliRunner().invoke(app, ["--url", tandem.url, "--key", fake.KEY, "doctor"])
    assert output.exit_code == 1
    assert "tandem fetch openai/gpt-oss-20b" in output.stdout


def test_the_doctor_looks_at_this_machine_when_nothing_answers(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "_run", lambda *command: None)
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "doctor"])
    assert result.exit_code == 1
    assert re.search(r"fail +url +Nothing answers", result.stdout)
    assert re.search(r"fail +docker +not found", result.stdout)
    assert re.search(r"ok +python|warn +python", result.stdout)


def test_the_doctor_names_a_key_that_is_wrong(run, tandem, monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda reached: [])
    result = CliRunner().invoke(app, ["--url", tandem.url, "--key", "tdm_wrong", "doctor"])
    assert result.exit_code == 1
    assert re.search(r"fail +key +.*does not accept this key", result.stdout)
