"""The watch: since when a service is as it is, and what it remembers."""

import json
import time
from typing import Any

import pytest

from services.dashboard import health
from services.dashboard.watch import Watch
from shared.settings import Settings
from shared.store import Store


def service(state: str, since: str | None = None) -> dict[str, Any]:
    return {"state": state, "detail": "", "since": since}


def test_a_service_that_does_not_say_is_so_since_it_was_first_seen_so(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, seen = Watch(settings, store), []

    def look(state: str, since: str | None = None) -> str | None:
        monkeypatch.setattr(health, "look", lambda *_: ({"llama": service(state, since)}, 0, []))
        watch._last = watch._look()
        seen.append(watch._last.services["llama"]["since"])
        time.sleep(0.002)
        return seen[-1]

    assert look("up") is None, "it may have been up for long"
    went_down = look("down")
    assert went_down and look("down") == went_down
    assert look("up") > went_down
    assert look("up", "2026-01-01T00:00:00Z") == "2026-01-01T00:00:00Z", "what a service says itself counts"


def test_history_is_read_from_the_end_and_a_torn_line_is_passed_over(settings: Settings, store: Store) -> None:
    now = time.time()
    lines = [json.dumps({"time": now - ago}) for ago in (9000, 50, 5)]
    store.history().write_text("\n".join([*lines, '{"time": 17']))
    assert [round(now - sample["time"]) for sample in Watch(settings, store).history(60)] == [5, 50]
