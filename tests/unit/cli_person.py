"""A person who types `tandem …`, with a home and a working directory of their own."""

from typer.testing import CliRunner

from services.cli import show
from services.cli.main import app
from tests.unit.fake_tandem import KEY


def at_home(monkeypatch, tmp_path):
    """Leave this machine's keys, environment and terminal out of the test; give the folder that holds home and work."""
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path / "home")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("TANDEM_KEY", "TANDEM_URL"):
        monkeypatch.delenv(name, raising=False)
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "_width", show.PIPE_WIDTH)
        monkeypatch.setattr(console, "_force_terminal", False)
    return tmp_path


def caller(tandem):
    """A function that runs `tandem` with a valid key; it gives stdout, or stderr where it is to fail with `code`."""

    def call(*words, code=0, key=KEY, stdin=None):
        options = ["--url", tandem.url, *(["--key", key] if key else [])]
        result = CliRunner().invoke(app, [*options, *words], input=stdin)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result.stderr if code else result.stdout

    return call
