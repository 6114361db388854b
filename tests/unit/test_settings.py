"""Settings as people see them: each with its variable and meaning, no secret among them."""

import pytest

from shared.settings import Settings, covered, described


def test_every_setting_has_a_variable_and_a_description(settings: Settings) -> None:
    found = {setting["variable"]: setting for setting in described(settings)}
    assert len(found) == len(Settings.model_fields)
    assert all(setting["description"] for setting in found.values())
    assert found["TANDEM_BASE_MODEL"]["value"] == settings.base_model
    assert found["TANDEM_BASE_MODEL"]["default"] == "openai/gpt-oss-20b"
    assert found["HF_HOME"]["default"] is None


@pytest.mark.parametrize(
    "address",
    ["redis://:hunter2@redis:6379/0", "redis://user:hun@ter2@redis/0", "rediss://redis/0?password=hunter2&db=1"],
)
def test_a_password_is_never_shown(settings: Settings, address: str) -> None:
    shown = str(described(settings.model_copy(update={"redis_url": address})))
    assert "ter2" not in shown and "redis" in shown
    assert covered("http://127.0.0.1:8080") == "http://127.0.0.1:8080"
