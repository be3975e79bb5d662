"""The recorder over a real store: a scripted feed and a scripted history, and what is stored and known afterwards."""

import asyncio
import contextlib
import time

import numpy as np
import pytest

from daemon.core.errors import Code, InvalidRequest, NotFound, RateLimited, SourceUnavailable, StoreFull
from daemon.core.market import NS_PER_SECOND, Bars, Instrument, Timeframe
from daemon.core.ports import (
    FeedBars,
    FeedDown,
    FeedHole,
    FeedOdd,
    FeedTicks,
    FeedUp,
    HistorySource,
    Hole,
    HoleReason,
    LiveFeed,
)
from daemon.core.ticks import BUY, Stream, ticks
from daemon.ingest.recording import RecordConfig, Recorder, fill_holes
from daemon.store import instruments, keys, ledger
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_chunks import KEY_STREAMS
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
UP = FeedUp(0)
LOST = FeedDown(0, "lost")
QUICK = RecordConfig(commit_ms=5)


def trades(*ids, symbol="BTCUSDT", decimals=1):
    """Trades a second apart by their ids."""
    numbers = np.array(ids, dtype=np.int64)
    columns = {"time_ns": numbers * NS_PER_SECOND, "id": numbers, "price": numbers * 10 + 5}
    size = np.full(numbers.size, 10**decimals)
    made = ticks(
        Stream.TRADES,
        **columns,
        size=size,
        side=np.full(numbers.size, BUY),
        price_decimals=decimals,
        size_decimals=decimals,
    )
    return FeedTicks(symbol, made)


def quotes(*seconds, symbol="BTCUSDT"):
    times = np.array(seconds, dtype=np.int64)
    columns = dict.fromkeys(("bid", "bid_size", "ask", "ask_size"), np.ones(times.size, np.int64))
    made = ticks(Stream.QUOTES, time_ns=times * NS_PER_SECOND, id=times, **columns, price_decimals=0, size_decimals=0)
    return FeedTicks(symbol, made)


class Feed:
    """Plays a script: events as they are; a number is a pause in seconds, a function is awaited, an error raised."""

    def __init__(self, *script, stays=True):
        self.script = script
        self.stays = stays
        self.played = asyncio.Event()
        self.is_closed = False

    async def events(self):
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if callable(step):
                    await step()
                elif isinstance(step, int | float):
                    await asyncio.sleep(step)
                else:
                    yield step
            self.played.set()
            if self.stays:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


class History:
    """A venue that has the trades of some ids; `answers` come first, one for each question: None, or an error."""

    streams = (Stream.TRADES,)

    def __init__(self, *ids, answers=(), page=2):
        self.ids = ids
        self.answers = list(answers)
        self.page = page
        self.asked = []
        self.opened = self.closed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def __call__(self, symbol):
        self.opened += 1
        self.symbol = symbol
        return self

    async def instrument(self, symbol):
        raise NotImplementedError(symbol)

    async def ticks(self, symbol, stream, start_ns, stop_ns):
        raise NotImplementedError(symbol, stream, start_ns, stop_ns)
        yield

    async def bars(self, symbol, timeframe, start_ns, stop_ns):
        raise NotImplementedError(symbol, timeframe, start_ns, stop_ns)
        yield

    async def ticks_between(self, symbol, stream, after_id, before_id):
        assert stream is Stream.TRADES
        self.asked.append((after_id, before_id))
        await self.gate.wait()
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer
        wanted = [number for number in self.ids if after_id < number < before_id]
        for start in range(0, len(wanted), self.page):
            yield trades(*wanted[start : start + self.page], symbol=symbol).rows

    async def close(self):
        self.closed += 1


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield BarStore(env)


def recorder(store, feed, history=None, config=QUICK, **options):
    return Recorder(store, store.ticks, "binance", feed, history, config, **options)


@contextlib.asynccontextmanager
async def running(made):
    """Record meanwhile; afterwards stop as a user does."""
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(told, within_s=10.0):
    """Wait until something is so."""
    async with asyncio.timeout(within_s):
        while not told():  # noqa: ASYNC110 - what is waited for is in a store
            await asyncio.sleep(0.002)


def ids(store, instrument=BTC, stream=Stream.TRADES):
    return store.ticks.read(instrument, stream).column("id").tolist()


def holes(store, stream=Stream.TRADES, instrument=BTC):
    """(after id, before id, reason, whether repaired) of each hole."""
    with store.ticks.env.read() as transaction:
        number = instruments.number(transaction, instrument)
        found = [] if number is None else ledger.holes(transaction, keys.series(number, KEY_STREAMS[stream], 0))
        return [(h.hole.after_id, h.hole.before_id, h.hole.reason, bool(h.repaired_at_ns)) for h in found]


def stretches(store, stream):
    """Seconds of each hole's ends, and its reason."""
    with store.ticks.env.read() as transaction:
        number = instruments.number(transaction, BTC)
        found = ledger.holes(transaction, keys.series(number, KEY_STREAMS[stream], 0))
        return [(h.hole.start_ns / NS_PER_SECOND, h.hole.stop_ns / NS_PER_SECOND, h.hole.reason) for h in found]


def problems(store):
    return [problem for each in verify(store.ticks.env) for problem in each.problems]


def test_the_fakes_are_what_the_ports_ask_for():
    feed: LiveFeed = Feed()
    assert feed
    assert isinstance(History(), HistorySource)


# What arrives is stored.


async def test_rows_are_committed_together_and_readable_while_recording_goes_on(store):
    writes = []
    wrapped = store.ticks.env.write
    store.ticks.env.write = lambda action: writes.append(1) or wrapped(action)
    feed = Feed(UP, *(trades(number) for number in range(1, 501)))
    made = recorder(store, feed)
    async with running(made):
        await until(lambda: len(ids(store)) == 500)
        assert made.status.connected
        await until(lambda: made.status.rows == {"trades": 500})
        assert len(writes) < 50
    assert ids(store) == list(range(1, 501))
    assert problems(store) == []


async def test_symbols_and_streams_are_series_of_their_own(store):
    feed = Feed(UP, trades(1, 2), quotes(1, 2, 3), trades(7, symbol="ETHUSDT"))
    made = recorder(store, feed)
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 3, "quotes": 3})
    assert ids(store) == [1, 2]
    assert ids(store, Instrument("binance", "ETHUSDT")) == [7]
    assert ids(store, stream=Stream.QUOTES) == [1, 2, 3]


async def test_cancellation_commits_what_has_arrived(store):
    feed = Feed(UP, *(trades(number) for number in range(100)))
    made = recorder(store, feed, config=RecordConfig(commit_ms=60_000))
    async with running(made):
        await feed.played.wait()
        assert ids(store) == []
    assert ids(store) == list(range(100))
    assert made.status.rows == {"trades": 100}
    assert feed.is_closed


async def test_a_recording_that_is_cancelled_within_a_commit_finishes_it_first(store):
    wrapped, entered = store.ticks.env.write, asyncio.Event()
    loop = asyncio.get_running_loop()
    is_over = []

    def slow(action):
        loop.call_soon_threadsafe(entered.set)
        time.sleep(0.1)
        wrapped(action)
        is_over.append(True)
        return {("BTCUSDT", Stream.TRADES): 3}, set()

    store.ticks.env.write = slow
    made = recorder(store, Feed(UP, trades(1, 2, 3)))
    async with running(made):
        await entered.wait()
    assert is_over == [True]
    assert made.status.rows == {"trades": 3}
    assert ids(store) == [1, 2, 3]


async def test_rows_that_do_not_fit_common_decimals_are_stored_apart(store):
    vast = ticks(
        Stream.TRADES,
        time_ns=[2 * NS_PER_SECOND],
        id=[2],
        price=[9 * 10**17],
        size=[1],
        price_decimals=0,
        size_decimals=0,
    )
    made = recorder(store, Feed(UP, trades(1, decimals=8), FeedTicks("BTCUSDT", vast)))
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 2})


async def test_bars_are_merged_over_those_that_are_stored(store):
    def bars(*starts, close=2.0):
        count = len(starts)
        start_ns = np.array(starts) * 60 * NS_PER_SECOND
        return Bars(start_ns, *(np.full(count, value) for value in (1.0, 4.0, 0.5, close, 9.0)))

    feed = Feed(
        FeedBars("BTCUSDT", Timeframe.MIN_1, bars(1, 2)),
        0.02,
        FeedBars("BTCUSDT", Timeframe.MIN_1, bars(2, 3, close=3.0)),
    )
    made = recorder(store, feed)
    async with running(made):
        await until(lambda: made.status.rows == {"bars": 3})
    stored = store.read(BTC, Timeframe.MIN_1)
    assert (stored.start_ns // (60 * NS_PER_SECOND)).tolist() == [1, 2, 3]
    assert stored.close.tolist() == [2.0, 3.0, 3.0]


async def test_live_bars_are_not_laid_over_bars_that_count_quote_currency(store):
    bars = Bars(np.array([60 * NS_PER_SECOND]), *(np.array([value]) for value in (1.0, 4.0, 0.5, 2.0, 9.0)))
    stated = {"replace": False, "volume_unit": "quote"}
    store.ticks.env.write(lambda transaction: store.merge(transaction, BTC, Timeframe.MIN_1, bars, **stated))
    later = bars._replace(start_ns=bars.start_ns * 2)
    made = recorder(store, Feed(FeedBars("BTCUSDT", Timeframe.MIN_1, later)))
    async with running(made):
        await until(lambda: made.status.odd)
    assert "quote currency" in made.status.last_error
    assert store.timeframes(BTC)[Timeframe.MIN_1].rows == 1


async def test_messages_that_could_not_be_used_are_counted(store):
    made = recorder(store, Feed(FeedOdd(0, "garbage", "{"), FeedOdd(0, "garbage", "{"), trades(1)))
    async with running(made):
        await until(lambda: made.status.rows)
    assert made.status.odd == 2


# Losses.


async def test_a_planned_reconnect_stores_overlapping_frames_once_and_misses_nothing(store):
    planned = FeedDown(0, "renewed", planned=True)
    feed = Feed(UP, trades(1, 2, 3), quotes(1, 2, 3), 0.02, planned, UP, trades(2, 3, 4, 5), quotes(3, 4), trades(3))
    made = recorder(store, feed)
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 5, "quotes": 4})
    assert ids(store) == [1, 2, 3, 4, 5]
    assert ids(store, stream=Stream.QUOTES) == [1, 2, 3, 4]
    assert holes(store) == holes(store, Stream.QUOTES) == []
    assert (made.status.reconnects, made.status.connected) == (0, True)


async def test_what_a_lost_connection_missed_is_fetched_and_the_ledger_says_so(store):
    history = History(*range(100))
    made = recorder(store, Feed(UP, trades(1, 2, 3), 0.02, LOST, UP, trades(8, 9)), history)
    async with running(made):
        await until(lambda: ids(store) == list(range(1, 10)))
        await until(lambda: made.status.backfilled == 4)
    assert holes(store) == [(3, 8, HoleReason.DISCONNECT, True)]
    assert history.asked == [(3, 8)]
    assert (history.opened, history.closed, history.symbol) == (1, 1, "BTCUSDT")
    assert made.status.reconnects == 1
    assert problems(store) == []


async def test_a_loss_and_what_follows_within_one_commit_are_told_apart(store):
    """The feed is often back before the next commit."""
    made = recorder(store, Feed(UP, trades(1, 2), quotes(1, 2), LOST, UP, trades(5, 6), quotes(5, 6)))
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 4, "quotes": 4})
    assert holes(store) == [(2, 5, HoleReason.DISCONNECT, False)]
    assert stretches(store, Stream.QUOTES) == [(2, 5, HoleReason.DISCONNECT)]


async def test_a_loss_during_a_commit_is_not_forgotten(store):
    wrapped, entered, lost = store.ticks.env.write, asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(action):
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(lost.wait(), loop).result()
        return wrapped(action)

    async def is_lost():
        lost.set()
        await asyncio.sleep(0.02)

    store.ticks.env.write = slow
    made = recorder(store, Feed(UP, quotes(1, 2), entered.wait, LOST, is_lost, UP, quotes(5)))
    async with running(made):
        await until(lambda: made.status.rows == {"quotes": 3})
    assert stretches(store, Stream.QUOTES) == [(2, 5, HoleReason.DISCONNECT)]


async def test_messages_that_are_missing_on_a_sound_connection_are_another_reason(store):
    history = History(*range(100))
    made = recorder(store, Feed(UP, trades(1, 2), lambda: until(lambda: ids(store) == [1, 2]), trades(5, 6)), history)
    async with running(made):
        await until(lambda: holes(store) == [(2, 5, HoleReason.IDS, True)])
    assert ids(store) == [1, 2, 3, 4, 5, 6]


async def test_late_rows_close_a_hole_by_themselves(store):
    def has(*wanted):
        return lambda: until(lambda: ids(store) == list(wanted))

    made = recorder(store, Feed(UP, trades(1, 2), has(1, 2), trades(5, 4), has(1, 2, 4, 5), trades(3)))
    async with running(made):
        await until(lambda: ids(store) == [1, 2, 3, 4, 5])
    assert {repaired for *_, repaired in holes(store)} == {True}


async def test_between_two_recordings_nobody_was_connected(store):
    for first in (1, 11):
        made = recorder(store, Feed(UP, trades(first, first + 1), quotes(first, first + 1)))
        async with running(made):
            await until(lambda made=made: made.status.rows == {"trades": 2, "quotes": 2})
    assert holes(store) == [(2, 11, HoleReason.DISCONNECT, False)]
    assert stretches(store, Stream.QUOTES) == [(2, 11, HoleReason.DISCONNECT)]


async def test_a_loss_of_quotes_stays_a_hole(store):
    history = History(*range(100))
    feed = Feed(UP, quotes(1, 2), trades(1, 2), 0.02, LOST, UP, quotes(6, 7), trades(3), 0.02, quotes(8))
    made = recorder(store, feed, history)
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 3, "quotes": 5})
    assert stretches(store, Stream.QUOTES) == [(2, 6, HoleReason.DISCONNECT)]
    assert history.asked == []


async def test_a_hole_that_the_feed_saw_in_a_book_is_noted_once(store):
    def depth(second):
        columns = {"id": [second], "side": [BUY], "price": [5], "size": [5]}
        times = [second * NS_PER_SECOND]
        return FeedTicks("BTCUSDT", ticks(Stream.DEPTH, time_ns=times, **columns, price_decimals=0, size_decimals=0))

    seen = Hole(1 * NS_PER_SECOND, 5 * NS_PER_SECOND, HoleReason.SEQUENCE, 1, 5)
    feed = Feed(UP, depth(1), 0.02, LOST, UP, FeedHole("BTCUSDT", Stream.DEPTH, seen), depth(5))
    made = recorder(store, feed)
    async with running(made):
        await until(lambda: made.status.rows == {"depth": 2})
    assert stretches(store, Stream.DEPTH) == [(1, 5, HoleReason.SEQUENCE)]


async def test_a_hole_that_the_feed_saw_in_trades_is_left_to_the_ids(store):
    seen = Hole(2 * NS_PER_SECOND, 5 * NS_PER_SECOND, HoleReason.IDS, 2, 5, 2)
    made = recorder(store, Feed(UP, trades(1, 2), FeedHole("BTCUSDT", Stream.TRADES, seen), trades(3, 4, 5)))
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 5})
    assert holes(store) == []


# What the history does not give.


async def test_rows_that_the_venue_lacks_stay_a_hole_and_are_not_asked_for_at_each_commit(store):
    history = History(*range(10, 100))
    more = [step for number in range(9, 39) for step in (trades(number), 0.006)]
    made = recorder(store, Feed(UP, trades(1, 2), 0.02, LOST, UP, *more), history)
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 32})
    assert history.asked == [(2, 9)]
    assert holes(store) == [(2, 9, HoleReason.DISCONNECT, False)]
    assert problems(store) == []


async def test_what_is_left_of_a_hole_keeps_its_reason(store):
    history = History(3, 4, 7, 8)
    made = recorder(store, Feed(UP, trades(1, 2), 0.02, LOST, UP, trades(10), 0.05, trades(11)), history)
    async with running(made):
        await until(lambda: ids(store) == [1, 2, 3, 4, 7, 8, 10, 11])
    assert [each for each in holes(store) if not each[3]] == [
        (4, 7, HoleReason.DISCONNECT, False),
        (8, 10, HoleReason.DISCONNECT, False),
    ]


@pytest.mark.parametrize(
    "refusal",
    [
        RateLimited(Code.RATE_LIMITED, "asks to wait", {"retry_after_s": 0.01}),
        SourceUnavailable(Code.SOURCE_UNAVAILABLE, "does not answer"),
    ],
    ids=lambda refusal: refusal.code,
)
async def test_a_venue_that_does_not_answer_is_asked_again_later(store, refusal):
    history = History(*range(100), answers=[refusal, refusal])
    made = recorder(store, Feed(UP, trades(1, 2), 0.02, LOST, UP, trades(6)), history, retry_s=0.01)
    async with running(made):
        await until(lambda: ids(store) == [1, 2, 3, 4, 5, 6])
    assert history.asked == [(2, 6)] * 3
    assert history.opened == history.closed == 3
    assert made.status.last_error == refusal.message


async def test_a_venue_that_asks_to_wait_is_left_alone_for_so_long(store):
    refusal = RateLimited(Code.RATE_LIMITED, "asks to wait", {"retry_after_s": 3_600})
    history = History(*range(100), answers=[refusal])
    more = [step for number in range(7, 27) for step in (trades(number), 0.006)]
    made = recorder(store, Feed(UP, trades(1, 2), 0.02, LOST, UP, trades(6), *more), history, retry_s=0.001)
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 23})
    assert history.asked == [(2, 6)]
    assert holes(store) == [(2, 6, HoleReason.DISCONNECT, False)]


@pytest.mark.parametrize("error", [NotFound(Code.SYMBOL_UNKNOWN, "gone"), KeyError("of the adapter's")], ids=type)
async def test_a_history_that_fails_costs_nothing_that_is_live(store, error):
    history = History(*range(100), answers=[error])
    made = recorder(store, Feed(UP, trades(1, 2), 0.02, LOST, UP, trades(6), 0.05, trades(7, 8)), history, retry_s=0.01)
    async with running(made) as task:
        await until(lambda: made.status.rows == {"trades": 5})
        await until(lambda: history.closed == 1)
        assert not task.done()
    assert history.asked == [(2, 6)]
    assert made.status.last_error


async def test_live_rows_are_stored_while_the_history_is_slow(store):
    history = History(*range(100))
    history.gate.clear()
    quiet = [step for number in range(8, 20) for step in (trades(number), 0.005)]
    feed = Feed(UP, trades(1, 2), trades(50, symbol="ETHUSDT"), 0.02, LOST, UP, trades(7), 0.03,
                trades(60, symbol="ETHUSDT"), *quiet)  # fmt: skip
    made = recorder(store, feed, history)
    async with running(made):
        await until(lambda: made.status.rows == {"trades": 17})
        history.gate.set()
        # The other symbol's hole was found meanwhile and has its turn, though nothing more comes of it.
        await until(lambda: ids(store, Instrument("binance", "ETHUSDT")) == list(range(50, 61)))
    assert ids(store) == list(range(1, 20))


async def test_a_recording_that_ends_while_the_history_is_asked_leaves_nothing_open(store):
    history = History(*range(100))
    history.gate.clear()
    made = recorder(store, Feed(UP, trades(1, 2), 0.02, LOST, UP, trades(7)), history)
    async with running(made):
        await until(lambda: history.asked)
    assert history.opened == history.closed == 1
    assert holes(store) == [(2, 7, HoleReason.DISCONNECT, False)]


async def test_holes_that_are_too_large_are_left_to_a_fetch(store):
    history = History(*range(100))
    config = RecordConfig(commit_ms=5, backfill_rows=3)
    made = recorder(store, Feed(UP, trades(1), 0.02, LOST, UP, trades(6), 0.02, LOST, UP, trades(9)), history, config)
    async with running(made):
        await until(lambda: ids(store) == [1, 6, 7, 8, 9])
    assert history.asked == [(6, 9)]


async def test_streams_that_the_venue_has_no_history_of_are_not_asked_for(store):
    history = History(*range(100))
    history.streams = (Stream.AGG_TRADES,)
    made = recorder(store, Feed(UP, trades(1), 0.02, LOST, UP, trades(6)), history)
    async with running(made):
        await until(lambda: history.closed)
    assert (history.asked, history.opened) == ([], 1)


# Ends.


async def test_a_full_store_ends_the_recording_with_the_error(store):
    def full(_action):
        raise StoreFull(Code.STORE_FULL, "no room")

    feed = Feed(UP, trades(1))
    made = recorder(store, feed)
    store.ticks.env.write = full
    with pytest.raises(StoreFull):
        await asyncio.wait_for(made.run(), 10)
    assert feed.is_closed


async def test_a_store_that_is_full_of_what_was_missed_ends_the_recording_with_the_error(store):
    history = History(*range(100))
    wrapped = store.ticks.env.write

    def full(action):
        if history.asked:
            raise StoreFull(Code.STORE_FULL, "no room")
        return wrapped(action)

    store.ticks.env.write = full
    feed = Feed(UP, trades(1), 0.02, LOST, UP, trades(6))
    with pytest.raises(StoreFull):
        await asyncio.wait_for(recorder(store, feed, history).run(), 10)
    assert feed.is_closed
    assert history.opened == history.closed == 1


async def test_a_feed_that_fails_ends_the_recording_after_what_it_brought_is_stored(store):
    history = History(*range(100))
    history.gate.clear()
    failing = Feed(UP, trades(1), 0.02, LOST, UP, trades(6), 0.05, trades(7), NotFound(Code.SYMBOL_UNKNOWN, "no"))
    with pytest.raises(NotFound):
        await asyncio.wait_for(recorder(store, failing, history).run(), 10)
    assert ids(store) == [1, 6, 7]
    assert history.opened == history.closed == 1
    assert len(asyncio.all_tasks()) == 1


async def test_a_feed_that_ends_by_itself_ends_the_recording(store):
    await asyncio.wait_for(recorder(store, Feed(UP, trades(1, 2), stays=False)).run(), 10)
    assert ids(store) == [1, 2]


async def test_the_feed_is_not_read_on_while_too_much_waits_for_the_disk(store, monkeypatch):
    monkeypatch.setattr("daemon.ingest.recording._MOST_PENDING_ROWS", 100)
    wrapped, gate = store.ticks.env.write, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(action):
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return wrapped(action)

    store.ticks.env.write = slow
    feed = Feed(UP, *(trades(*range(start, start + 50)) for start in range(0, 1_000, 50)))
    made = recorder(store, feed)
    async with running(made):
        await asyncio.sleep(0.05)
        assert not feed.played.is_set()
        gate.set()
        await until(lambda: made.status.rows == {"trades": 1_000})
    assert ids(store) == list(range(1_000))


# Filling holes outside a recording.


async def test_holes_are_filled_one_after_another_and_what_was_fetched_before_a_refusal_stays(store):
    def append(transaction):
        return store.ticks.append(transaction, BTC, trades(1, 5, 9).rows)

    store.ticks.env.write(append)
    history = History(*range(100), answers=[None, InvalidRequest(Code.INVALID_REQUEST, "no")])
    with pytest.raises(InvalidRequest):
        await fill_holes(store.ticks, history, BTC, Stream.TRADES, 1_000)
    assert ids(store) == [1, 2, 3, 4, 5, 9]
    assert await fill_holes(store.ticks, history, BTC, Stream.TRADES, 1_000) == 3
    assert await fill_holes(store.ticks, history, BTC, Stream.TRADES, 1_000) == 0
    assert problems(store) == []
