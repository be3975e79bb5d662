"""The daemon's state: each part judged by figures, the worst counts, and what is stuck holds nobody up."""

import asyncio
import logging
import shutil
import threading
from types import SimpleNamespace

import pytest

from daemon.api import health
from daemon.api.health import HealthCheck, feeds_state, loop_state, store_state, workers_state, worst
from daemon.api.loop_lag import INTERVAL_S, WINDOW_S, LoopLag
from daemon.ingest.recording import RecordStatus
from daemon.research.executors import WorkerCounts
from daemon.store.env import Environment, StoreConfig


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield env


def has_remedy(part):
    return (part.why is None) == (part.remedy is None) == (part.status == "ok")


@pytest.mark.parametrize(
    ("states", "found"),
    [([], "ok"), (["ok", "ok"], "ok"), (["ok", "degraded"], "degraded"), (["degraded", "failed", "ok"], "failed")],
)
def test_the_worst_counts(states, found):
    assert worst(states) == found


@pytest.mark.parametrize(("free", "status"), [(3 << 30, "ok"), (1 << 30, "degraded"), (10 << 20, "failed")])
def test_a_store_needs_room_on_its_disk(env, monkeypatch, free, status):
    usage = shutil.disk_usage(env.path.parent)
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _path: usage._replace(free=free))
    part = store_state(env)
    assert (part.status, part.figures["free_disk_bytes"]) == (status, free)
    assert has_remedy(part)


def test_a_store_needs_room_in_its_map(tmp_path):
    with Environment(tmp_path, StoreConfig(map_mb=1024, max_map_gb=1, sync=False)) as env:
        assert store_state(env).status == "ok"
        full = 0.95 * env.most_bytes
        env.size_bytes = lambda: int(full)
        part = store_state(env)
    assert part.status == "degraded"
    assert "max_map_gb" in part.remedy


def test_a_store_that_cannot_be_read_has_failed_and_says_why(tmp_path):
    env = Environment(tmp_path, StoreConfig(sync=False))
    env.close()
    part = store_state(env)
    assert part.status == "failed"
    assert str(tmp_path) in part.why


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ((2, 2, 0), "ok"),
        ((2, 0, 2), "ok"),
        ((2, 1, 1), "ok"),
        ((2, 1, 0), "degraded"),
        ((2, 0, 1), "degraded"),
        ((2, 0, 0), "failed"),
    ],
)
def test_workers_are_judged_by_how_many_live_or_begin(counts, status):
    part = workers_state(WorkerCounts(*counts))
    assert part.status == status
    assert has_remedy(part)


def test_feeds_are_judged_by_their_connections():
    up, new = RecordStatus(connected=True), RecordStatus()
    lost = RecordStatus(reconnects=1)
    odd = RecordStatus(last_error="the venue says no")
    cases = {"": "ok", "u": "ok", "n": "degraded", "un": "degraded", "ul": "degraded", "l": "failed", "lo": "failed"}
    for word, status in cases.items():
        part = feeds_state([(letter, {"u": up, "n": new, "l": lost, "o": odd}[letter]) for letter in word])
        assert part.status == status, word
        assert has_remedy(part)
    assert "o (the venue says no)" in feeds_state([("o", odd)]).why


@pytest.mark.parametrize(("p99_s", "status"), [(0.0, "ok"), (0.2, "ok"), (0.3, "degraded"), (3.0, "failed")])
def test_the_event_loop_is_judged_by_the_last_minute(p99_s, status):
    part = loop_state(p99_s, 5.0)
    assert part.status == status
    assert part.figures == {"lag_p99_ms": 1e3 * p99_s, "lag_worst_ms": 5000.0}
    assert has_remedy(part)


# Event-loop lag.


def test_lag_is_that_of_the_last_minute_and_early_timers_count_as_none():
    lag = LoopLag(lambda: 0.0)
    assert (lag.p99_s, lag.worst_s) == (0.0, 0.0)
    lag.note(0.04)
    for _ in range(round(WINDOW_S / INTERVAL_S) - 1):
        lag.note(-0.0003)
    assert (lag.p99_s, lag.worst_s) == (0.0, 0.04)
    lag.note(0.01)
    assert (lag.p99_s, lag.worst_s) == (0.0, 0.01)
    for _ in range(6):
        lag.note(0.02)
    assert lag.p99_s == 0.01


def test_what_is_late_is_logged_once_in_a_while_with_all_that_happened(caplog):
    now = [0.0]
    lag = LoopLag(lambda: now[0])
    with caplog.at_level(logging.WARNING, "daemon.api.loop_lag"):
        lag.note(0.049)
        assert caplog.messages == []
        for at, lag_s in ((0.0, 0.06), (1.0, 0.5), (2.0, 0.1), (12.0, 0.001), (30.0, 0.001)):
            now[0] = at
            lag.note(lag_s)
    assert len(caplog.messages) == 2
    assert "late by 60 ms (1 times" in caplog.messages[0]
    assert "late by 500 ms (2 times" in caplog.messages[1]


async def test_a_loop_that_stands_still_is_noticed_and_watching_ends_with_the_application():
    lag = LoopLag()
    watching = lag.watch(None)
    await anext(watching)
    await asyncio.sleep(0)
    threading.Event().wait(0.3)  # nothing else runs on the loop meanwhile
    while lag.worst_s == 0.0:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert lag.worst_s > 0.15
    with pytest.raises(StopAsyncIteration):
        await anext(watching)
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


# The whole.


def services(env, **more):
    nothing = SimpleNamespace(counts=lambda: {"queued": 0, "running": 0})
    made = {
        "env": env, "book": [1, 2], "feeds": list, "workers": None,
        "runs": nothing, "backtests": nothing, "optimizations": nothing,
        "resources": SimpleNamespace(uptime_s=lambda: 7, memory_bytes=lambda: 9),
    }  # fmt: skip
    return SimpleNamespace(**made | more)


async def test_the_state_is_measured_once_for_all_who_ask(env, monkeypatch):
    measured = []
    check = HealthCheck(services(env, feeds=lambda: measured.append(1) or []), LoopLag())
    states = await asyncio.gather(*(check.state() for _ in range(20)))
    assert [each.status for each in states] == ["ok"] * 20
    assert len(measured) == 1
    monkeypatch.setattr(health.time, "monotonic", lambda: 1e9)
    await check.state()
    assert len(measured) == 2


async def test_a_store_that_does_not_answer_is_told_in_time(env, monkeypatch):
    monkeypatch.setattr(health, "PATIENCE_S", 0.05)
    released = threading.Event()
    check = HealthCheck(services(env, feeds=lambda: released.wait(10) and []), LoopLag())
    try:
        stuck = await check.state()
        assert (stuck.status, stuck.components["store"].status) == ("failed", "failed")
        assert "0.05 s" in stuck.components["store"].why
        assert (await check.state()).status == "failed"
    finally:
        released.set()
    while (await check.state()).status != "ok":  # noqa: ASYNC110
        await asyncio.sleep(0.01)
