"""Regular work: what each does to a store, when it runs, and that nothing ends the scheduler but its end."""

import asyncio
import logging
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from adapters import registry
from adapters.binance.config import BinanceConfig
from adapters.coinbase.config import CoinbaseConfig
from adapters.registry import VenueSettings
from daemon.app import scheduler as scheduling
from daemon.app.scheduler import ScheduleConfig, Scheduler, Upkeep
from daemon.app.stores import open_store
from daemon.core.errors import Code, ConfigError, SourceUnavailable
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument
from daemon.core.ticks import BUY, Stream, ticks
from daemon.ingest.recording import RecordConfig
from daemon.store.env import Environment, StoreConfig
from daemon.store.upkeep import RetentionConfig

BTC = Instrument("binance", "BTCUSDT")
SETTINGS = VenueSettings(BinanceConfig(), CoinbaseConfig())


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield open_store(env)


def trades(*ids, start_ns=0):
    numbers = np.array(ids, dtype=np.int64)
    columns = {"id": numbers, "price": numbers, "size": numbers, "side": np.full(numbers.size, BUY)}
    times = start_ns + numbers * NS_PER_SECOND
    return ticks(Stream.TRADES, time_ns=times, **columns, price_decimals=0, size_decimals=0)


def append(store, rows, instrument=BTC):
    store.env.write(lambda transaction: store.ticks.append(transaction, instrument, rows))


def ids(store, instrument=BTC):
    return store.ticks.read(instrument, Stream.TRADES).column("id").tolist()


class History:
    """A venue with all trades."""

    streams = (Stream.TRADES,)

    def __init__(self, refusal=None, gate=None):
        self.refusal = refusal
        self.gate = gate
        self.asked = []
        self.closed = 0

    async def ticks_between(self, symbol, stream, after_id, before_id):
        self.asked.append((symbol, stream, after_id, before_id))
        if self.gate:
            await self.gate()
        if self.refusal:
            raise self.refusal
        yield trades(*range(after_id + 1, before_id))

    async def close(self):
        self.closed += 1


@pytest.fixture
def venue(monkeypatch):
    """Have histories asked of this one."""

    def use(history):
        monkeypatch.setattr(registry, "history_of", lambda *_: history)
        return history

    return use


def upkeep(store, **retention):
    return Upkeep(store, RetentionConfig(**retention), RecordConfig(), SETTINGS)


# What is done.


def test_compaction_lays_the_tail_over_the_chunks(store, caplog):
    for number in range(5):
        append(store, trades(number))
    (before,) = store.ticks.series()
    with caplog.at_level(logging.INFO):
        upkeep(store).compact()
    (after,) = store.ticks.series()
    assert (before.tail_rows, after.tail_rows, after.rows) == (5, 0, 5)
    assert ids(store) == [0, 1, 2, 3, 4]
    assert "compacted to 1 chunks" in caplog.text


def test_retention_deletes_what_is_older_than_configured_and_says_so(store, caplog):
    now_ns = time.time_ns()
    append(store, trades(1, 2, 3, start_ns=now_ns - 10 * NS_PER_DAY))
    append(store, trades(4, 5, start_ns=now_ns - NS_PER_DAY))
    with caplog.at_level(logging.INFO):
        upkeep(store, max_age_days={"trades": 5.0}).retain()
    assert ids(store) == [4, 5]
    assert "3 old rows deleted" in caplog.text


def test_without_limits_retention_keeps_everything(store):
    append(store, trades(1, 2, 3))
    upkeep(store).retain()
    assert ids(store) == [1, 2, 3]


def test_gaps_are_repaired_from_their_venues(store, venue):
    history = venue(History())
    append(store, trades(1, 5, 6, 9))
    append(store, trades(1, 5), Instrument("local", "MINE"))
    upkeep(store).repair_gaps()
    assert ids(store) == list(range(1, 10))
    assert ids(store, Instrument("local", "MINE")) == [1, 5]
    assert history.asked == [("BTCUSDT", Stream.TRADES, 1, 5), ("BTCUSDT", Stream.TRADES, 6, 9)]
    assert history.closed == 1
    upkeep(store).repair_gaps()
    assert len(history.asked) == 2


def test_a_venue_that_does_not_answer_does_not_keep_others_from_being_asked(store, venue, caplog):
    history = venue(History(SourceUnavailable(Code.SOURCE_UNAVAILABLE, "it is away")))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        append(store, trades(1, 5), Instrument("binance", symbol))
    upkeep(store).repair_gaps()
    assert [symbol for symbol, *_ in history.asked] == ["BTCUSDT", "ETHUSDT"]
    assert history.closed == 2
    assert caplog.text.count("it is away") == 2


def test_a_repair_that_takes_long_is_left_when_the_daemon_ends(store, venue):
    began = threading.Event()

    async def never():
        began.set()
        await asyncio.Event().wait()

    history = venue(History(gate=never))
    append(store, trades(1, 5))
    work = upkeep(store)
    thread = threading.Thread(target=work.repair_gaps)
    thread.start()
    assert began.wait(10)
    work.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert history.closed == 1


# When.


@pytest.mark.parametrize("key", ["compact", "retention", "repair_gaps"])
@pytest.mark.parametrize("fields", ["now", "* * * *", "61 * * * *", "* * * * * *", "* * * * 8", "* * * * 5-2", "  "])
def test_wrong_fields_of_crontab_are_an_error_that_names_the_key(store, key, fields):
    with pytest.raises(ConfigError) as caught:
        Scheduler(upkeep(store), ScheduleConfig(**{key: fields}))
    assert caught.value.code == Code.CONFIG_INVALID
    assert caught.value.message.startswith(f"schedule.{key}: `{fields}` ")


@pytest.mark.parametrize(
    ("fields", "following"),
    [
        ("30 3 * * *", "2024-08-07T03:30"),  # a Wednesday
        ("*/15 * * * *", "2024-08-07T00:15"),
        ("0 0 * * 0", "2024-08-11T00:00"),
        ("0 0 * * 7", "2024-08-11T00:00"),
        ("0 0 * * sun", "2024-08-11T00:00"),
        ("0 0 * * 1", "2024-08-12T00:00"),
        ("0 0 * * 1-2", "2024-08-12T00:00"),
        ("0 0 * * 6,5", "2024-08-09T00:00"),
        ("0 0 * * 4/2", "2024-08-08T00:00"),
        ("0 0 * * */6", "2024-08-10T00:00"),
        ("0 0 * * 0-6", "2024-08-08T00:00"),
        ("0 0 1 9 *", "2024-09-01T00:00"),
    ],
)
def test_fields_mean_what_crontab_means_by_them(fields, following):
    now = datetime(2024, 8, 7, 0, 1, tzinfo=UTC)
    found = scheduling._trigger("compact", fields).get_next_fire_time(None, now)  # noqa: SLF001
    assert found.isoformat()[:16] == following


def test_without_schedules_nothing_is_started(store):
    threads = threading.active_count()
    idle = Scheduler(upkeep(store), ScheduleConfig())
    idle.start()
    assert threading.active_count() == threads
    idle.stop()


def test_work_that_is_due_is_done_until_the_scheduler_ends(store, monkeypatch):
    done = threading.Event()
    work = upkeep(store)
    monkeypatch.setattr(work, "compact", done.set)
    _often(monkeypatch)
    running = Scheduler(work, ScheduleConfig(compact="* * * * *"))
    running.start()
    assert done.wait(10)
    running.stop()
    done.clear()
    assert not done.wait(0.1)


@pytest.mark.parametrize("error", [SourceUnavailable(Code.SOURCE_UNAVAILABLE, "it is away"), KeyError("a defect")])
def test_an_error_in_one_piece_of_work_is_logged_and_ends_nothing(store, monkeypatch, caplog, error):
    tries, done = [], threading.Event()
    work = upkeep(store)

    def fails():
        tries.append(1)
        if len(tries) == 3:
            done.set()
        raise error

    monkeypatch.setattr(work, "compact", fails)
    _often(monkeypatch)
    running = Scheduler(work, ScheduleConfig(compact="* * * * *"))
    running.start()
    assert done.wait(10)
    running.stop()
    assert str(error) in caplog.text


def test_pieces_of_work_never_run_at_once(store, monkeypatch):
    at_once, most, count = [], [], threading.Semaphore(0)
    work = upkeep(store)

    def one():
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.02)
        at_once.pop()
        count.release()

    for name in ("compact", "retain", "repair_gaps"):
        monkeypatch.setattr(work, name, one)
    _often(monkeypatch)
    running = Scheduler(work, ScheduleConfig(compact="* * * * *", retention="* * * * *", repair_gaps="* * * * *"))
    running.start()
    for _ in range(6):
        assert count.acquire(timeout=10)
    running.stop()
    assert max(most) == 1


def _often(monkeypatch):
    """Have every schedule mean each 30 ms."""
    from apscheduler.triggers.interval import IntervalTrigger

    monkeypatch.setattr(scheduling, "_trigger", lambda *_: IntervalTrigger(seconds=0.03, timezone="UTC"))
