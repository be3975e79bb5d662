"""The memory bound: grows with what is read, is cut by dates, and knows ticks and longer bars."""

import os

import numpy as np
import pytest
from stand_ins.backtests import BTC, spec

from daemon.core.backtest import Costs, OrderBook, Own, Validation
from daemon.core.market import NS_PER_DAY, Bars, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.research.backtest_memory import (
    BANDS,
    BAR_BYTES,
    BOOK_BYTES,
    COLUMN_BYTES,
    COLUMNS,
    EQUITY_BYTES,
    FIXED_BYTES,
    LEVEL_BYTES,
    MOST_LEVELS,
    READ_BYTES,
    SIGNAL_BYTES,
    STREAM_BYTES,
    BacktestConfig,
    memory_bound,
)
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

DAYS, FIRST = 10, 19_000 * NS_PER_DAY
PER_BAR = BAR_BYTES + SIGNAL_BYTES + COLUMN_BYTES * COLUMNS + BANDS * EQUITY_BYTES
MINUTE = Timeframe.MIN_1.ns


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Ten days of minutes, and a trade every half hour."""
    with Environment(tmp_path_factory.mktemp("memory"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        start = FIRST + MINUTE * np.arange(DAYS * 1_440)
        ones = np.ones(start.size)
        rows = Bars(start, ones, ones, ones, ones, ones)
        env.write(lambda transaction: store.merge(transaction, BTC, Timeframe.MIN_1, rows, replace=False))
        steps = np.arange(DAYS * 48)
        trades = ticks(
            Stream.TRADES, time_ns=FIRST + 30 * MINUTE * steps, id=steps, price=steps + 1, size=steps + 1,
            price_decimals=0, size_decimals=0,
        )  # fmt: skip
        env.write(lambda transaction: store.ticks.append(transaction, BTC, trades))
        yield store


def test_a_bar_counts_with_its_columns_and_its_equity_in_both_bands(bars):
    assert memory_bound(spec("x"), bars) == pytest.approx(FIXED_BYTES + DAYS * 1_440 * PER_BAR, rel=1e-4)


def test_symbols_add_up(bars):
    one = spec("x")
    two = spec("x")
    two = type(two)(**{name: getattr(two, name) for name in two.__struct_fields__} | {"markets": one.markets * 2})
    assert memory_bound(two, bars) - FIXED_BYTES == 2 * (memory_bound(one, bars) - FIXED_BYTES)


def test_dates_cut_it_to_what_they_have_room_for(bars):
    day = spec("x", start_ns=FIRST + NS_PER_DAY, stop_ns=FIRST + 2 * NS_PER_DAY)
    assert 1_440 * PER_BAR <= memory_bound(day, bars) - FIXED_BYTES <= 1_443 * PER_BAR
    beyond = spec("x", start_ns=FIRST + 100 * NS_PER_DAY)
    assert memory_bound(beyond, bars) - FIXED_BYTES <= 3 * PER_BAR
    wide = spec("x", start_ns=0, stop_ns=FIRST * 2)
    assert memory_bound(wide, bars) == memory_bound(spec("x"), bars)


def test_longer_bars_count_what_they_are_made_of(bars):
    hours = memory_bound(spec("x", timeframe=Timeframe.HOUR_1), bars) - FIXED_BYTES
    assert hours == pytest.approx(DAYS * 1_440 * READ_BYTES + DAYS * 24 * PER_BAR, rel=0.01)


def test_slippage_by_the_book_holds_levels_of_every_bar(bars):
    plain = spec("x")
    costs = {"costs": Costs(maker_rate=0.0, taker_rate=0.0, slippage=OrderBook(levels=10))}
    walking = type(plain)(**{name: getattr(plain, name) for name in plain.__struct_fields__} | costs)
    more = memory_bound(walking, bars) - memory_bound(plain, bars) - STREAM_BYTES
    assert more == pytest.approx(DAYS * 1_440 * LEVEL_BYTES * (10 + MOST_LEVELS), rel=1e-3)


def test_ticks_are_streamed(bars):
    minutes = memory_bound(spec("x", Stream.TRADES), bars)
    assert minutes == FIXED_BYTES + STREAM_BYTES + DAYS * 48 * PER_BAR  # no more bars than trades
    days = memory_bound(spec("x", Stream.TRADES, timeframe=Timeframe.DAY_1), bars)
    assert FIXED_BYTES + STREAM_BYTES < days <= FIXED_BYTES + STREAM_BYTES + (DAYS + 2) * PER_BAR
    assert memory_bound(spec("x", fills="ticks"), bars) == memory_bound(spec("x"), bars) + STREAM_BYTES


def test_a_book_is_held_and_its_streams_are_read_beside(bars):
    beside = memory_bound(spec("x", fills="book"), bars) - memory_bound(spec("x"), bars)
    assert beside == 2 * STREAM_BYTES + BOOK_BYTES
    own = {"program": Own("mine", "0" * 64), "validation": Validation(sensitivity=True)}
    once, often = (memory_bound(spec("x", fills=fills, **own), bars) for fills in ("bars", "book"))
    assert often - once == (1 + (os.cpu_count() or 1)) * beside


def test_what_is_not_stored_takes_nothing_of_its_own(bars):
    assert memory_bound(spec("x", Timeframe.MIN_5), bars) == FIXED_BYTES
    assert memory_bound(spec("x", Stream.QUOTES), bars) == FIXED_BYTES + STREAM_BYTES


def test_the_budget_is_half_of_the_machine_unless_it_is_given():
    assert BacktestConfig(memory_mb=3).memory_bytes == 3 << 20
    assert BacktestConfig().memory_bytes > 100 << 20
