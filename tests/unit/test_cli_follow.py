"""A run is followed over connections that break, and its story adds up."""

import itertools

import pytest

from services.cli import follow, show
from services.cli.client import Client, Failure, Unreachable
from services.cli.sse import Event, parse
from services.cli.story import Story, line, point
from tests.unit import fake_tandem as fake

RUN_ID = str(fake.RUN["id"])
STREAM = f"GET /api/runs/{RUN_ID}/events/stream"


@pytest.fixture
def client(tandem):
    return Client(tandem.url, fake.KEY, sleep=lambda seconds: None)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_read_however_the_bytes_are_cut(size):
    text = 'retry: 1\n\n: hello\n\nevent: log\r\nid: 5\r\ndata: {"a":\r\ndata: "ü\u2028"}\r\n\r\ndata: cut o'.encode()
    chunks = [text[n : n + size] for n in range(0, len(text), size)]
    assert list(parse(chunks)) == [Event("log", '{"a":\n"ü\u2028"}', "5")]


def test_a_broken_stream_goes_on_where_it_broke(tandem, client):
    replies = iter(
        [fake.sse(fake.EVENTS[:3], end=False), fake.sse(fake.EVENTS[:5], 3, end=False), fake.sse(fake.EVENTS, 5)]
    )
    tandem.routes[STREAM] = lambda request: next(replies)
    lost = []
    assert list(client.events(RUN_ID, lost=lost.append)) == fake.EVENTS
    assert [request.headers["Last-Event-ID"] for request in tandem.requests] == [None, "300", "500"]
    assert lost == ["The connection is lost; trying again in 0.5 s."] * 2


def test_a_server_that_restarts_is_waited_for(tandem, client):
    away = (503, {"error": {"message": "The service that answers this is not up.", "type": "unavailable"}})
    replies = iter([fake.sse(fake.EVENTS[:2], end=False), (502, "gone"), away, fake.sse(fake.EVENTS, 2)])
    tandem.routes[STREAM] = lambda request: next(replies)
    waits = []
    client.sleep = waits.append
    assert len(list(client.events(RUN_ID))) == len(fake.EVENTS)
    assert waits == [0.5, 1.0, 2.0]


def test_a_server_that_stays_away_ends_the_following(tandem, client, monkeypatch):
    replies = itertools.chain([fake.sse(fake.EVENTS[:2], end=False)], itertools.repeat((502, "gone")))
    tandem.routes[STREAM] = lambda request: next(replies)
    monkeypatch.setattr("services.cli.client.LOST_AFTER", -1.0)
    with pytest.raises(Unreachable):
        list(client.events(RUN_ID))


def test_a_run_that_is_not_there_is_not_waited_for(tandem, client):
    del tandem.routes[STREAM]
    with pytest.raises(Failure, match="There is no"):
        list(client.events(RUN_ID))
    assert len(tandem.requests) == 1


def test_the_story_knows_the_curve_and_what_is_left():
    told = Story(steps=4)
    for event in fake.EVENTS[:6]:
        told.take(event)
    assert told.progress() == "step 2/4 · loss 2.500 → 1.250 · validation 1.500 · 1,000 tok/s"
    assert told.left() == 4.0  # two seconds a step, two steps to go
    told.take({"type": "status", "state": "queued", "reason": "Its worker died."})
    assert (told.state, told.left()) == ("queued", None)


def test_events_read_as_lines():
    lines = [line(event) or point(event) for event in fake.EVENTS]
    assert lines[0] == "running on gpu0"
    assert lines[2] == "step 1 · loss 2.5 · tok/s 900"
    assert lines[4] == "step 2 · validation 1.5"
    assert lines[5] == "checkpoint at step 2 (2.0 KiB)"
    assert lines[-1] == "succeeded: shop@v1"
    assert line({"type": "warning", "text": "It recites."}) == "warning: It recites."


def test_ctrl_c_detaches_and_says_how_to_go_on(tandem, client, monkeypatch, capsys):
    monkeypatch.setattr(Client, "events", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    follow.watch(client, RUN_ID)
    said = capsys.readouterr().out
    assert f"tandem logs {RUN_ID} --follow" in said
    assert f"tandem jobs cancel {RUN_ID}" in said


def test_a_terminal_shows_the_run_live(client, monkeypatch, capsys):
    monkeypatch.setattr(show.out, "_force_terminal", True)
    monkeypatch.setattr(show.out, "_width", 80)
    follow.watch(client, RUN_ID)
    screen = capsys.readouterr().out
    assert "4 of 4 steps" in screen
    assert "loss 2.500 → 0.750" in screen
    assert "checkpoint at step 2" in screen
    assert "succeeded in 2 min 00 s" in screen
