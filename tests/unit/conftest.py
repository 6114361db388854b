"""What many tests share: for the command line a Tandem to speak to, a home of one's own and a person who types; for
exports a tiny base and an adapter of it."""

from pathlib import Path

import pytest

from tests.unit import fake_tandem as fake
from tests.unit.cli_person import at_home, caller
from tests.unit.tiny_adapter import make_adapter
from tests.unit.tiny_gpt_oss import save, tiny


@pytest.fixture
def tandem():
    with fake.serve(fake.full()) as running:
        yield running


@pytest.fixture
def person(monkeypatch, tmp_path):
    return at_home(monkeypatch, tmp_path)


@pytest.fixture
def run(tandem):
    return caller(tandem)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(folder)
    return folder
