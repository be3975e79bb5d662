"""The bus: every listener hears every event, in order, whatever becomes of the others."""

import pytest

from daemon.core.bus import Bus
from daemon.core.events import ProbeFailed

FIRST, SECOND = (ProbeFailed(id=each, error="", code="") for each in "ab")


def test_every_listener_hears_what_is_published_while_it_listens():
    bus, early, late = Bus(), [], []
    leave = bus.listen(early.append)
    bus.publish(FIRST)
    bus.listen(late.append)
    bus.publish(SECOND)
    leave()
    leave()
    bus.publish(FIRST)
    assert (early, late) == ([FIRST, SECOND], [SECOND, FIRST])


def test_a_listener_that_fails_is_told_of_and_keeps_nobody_from_hearing():
    failed, heard = [], []
    bus = Bus(failed.append)
    bus.listen(lambda event: heard.append(event.missing))
    bus.listen(heard.append)
    bus.publish(FIRST)
    assert (failed, heard) == ([FIRST], [FIRST])


def test_a_failure_that_nobody_asked_for_is_no_secret(monkeypatch):
    seen = []
    monkeypatch.setattr("threading.excepthook", seen.append)
    bus = Bus()
    bus.listen(lambda event: event.missing)
    bus.publish(FIRST)
    assert seen[0].exc_type is AttributeError
    with pytest.raises(AttributeError):
        raise seen[0].exc_value
