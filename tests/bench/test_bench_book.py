"""The bench of books and own strategies: what it measures happens, not how fast it is."""

import math
from pathlib import Path

import numpy as np
import pytest

from daemon.app import bench_book as bench
from daemon.app import bench_book_market as markets
from daemon.app.bench_book_strategies import IN_PYTHON
from daemon.core.errors import InvalidRequest
from daemon.core.ticks import BUY, Stream
from daemon.engine.book import Book
from daemon.engine.own import Handler
from daemon.research.own.loading import load

CAPTURE = Path(__file__).parents[3] / "shared" / "data" / "binance" / "streams" / "futures-um-btcusdt-20240808.gz"
UNITS = ("_rows", "_updates", "_trades", "_bars", "_fills", "_per_s", "_s", "_hftbacktest")


def check(figures):
    for name, value in figures.items():
        assert name.endswith(UNITS), name
        if value is None:
            assert "hftbacktest" in name
            continue
        assert math.isfinite(value), name
        assert value > 0, name


@pytest.fixture(scope="module")
def market():
    return markets.simulated(20_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where strategies are compiled to: each takes seconds."""
    return tmp_path_factory.mktemp("compiled")


def test_the_simulated_book_is_never_crossed_and_as_narrow_as_a_busy_one(market):
    book = Book()
    book.apply(market.depth)
    assert book.is_whole
    assert book.state["crossed"][0] == 0
    assert book.state["events"][0] == market.depth_events
    bid, ask = book.best
    assert ask == bid + 1


def test_trades_of_the_simulated_market_are_at_the_best_levels(market):
    price, side = market.trades.column("price"), market.trades.column("side")
    time_ns = market.trades.time_ns
    best = {}
    for row in range(market.depth.size):
        best.setdefault(int(market.depth.time_ns[row]), []).append(row)
    first = int(np.flatnonzero(time_ns > market.depth.time_ns[0])[0])
    event = best[int(max(each for each in best if each < time_ns[first]))]
    bids = market.depth.column("side")[event] == BUY
    shown = market.depth.column("size")[event] > 0
    top = market.depth.column("price")[event][bids & shown].max()
    assert price[first] == top + (side[first] == BUY)


def test_a_market_is_repeated_in_step(market):
    twice = markets.repeated(market.trades, market.depth, 2 * market.depth.size)
    assert (twice.depth.size, twice.trades.size) == (2 * market.depth.size, 2 * market.trades.size)
    assert twice.depth_events == 2 * market.depth_events
    for rows in (twice.depth, twice.trades):
        assert (np.diff(rows.time_ns) >= 0).all()
    shift = twice.depth.time_ns[market.depth.size] - market.depth.time_ns[0]
    assert twice.trades.time_ns[market.trades.size] - market.trades.time_ns[0] == shift


def test_a_recording_is_read_and_one_without_depth_refused(monkeypatch):
    found = markets.recorded(CAPTURE, 1)
    assert (found.depth.size, found.trades.size) == (445_521, 21_313)
    assert found.depth.stream is Stream.DEPTH
    monkeypatch.setattr("daemon.app.bench_store.of_file", lambda _: [])
    with pytest.raises(InvalidRequest, match="has no trades"):
        markets.recorded(CAPTURE, 1)


def test_a_market_maker_is_filled_from_arrays_and_from_the_store(market, folder, monkeypatch):
    monkeypatch.setattr(bench, "_PASSES", 1)
    monkeypatch.setattr(bench, "_elsewhere", lambda run: run())
    figures = bench._arrays(market, folder) | bench._from_store(market, folder)  # noqa: SLF001
    check(figures)
    assert figures["depth_fills"] > 10


def test_every_trade_reaches_a_compiled_strategy_and_every_bar_one_in_python(market, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_PASSES", 1)
    trades = markets.lengthened(market.trades, 60_000)
    figures = bench._every_trade(trades, tmp_path) | bench._as_python(trades)  # noqa: SLF001
    check(figures)
    assert figures["own_trades"] >= 60_000
    ran = bench._on_trades(load(IN_PYTHON, "in_python.py"), trades, None)  # noqa: SLF001
    assert not ran.compiled.handlers
    assert [each.handler for each in ran.compiled.uncompiled] == [Handler.BAR]


def test_a_strategy_is_compiled_once_for_all_processes(folder, monkeypatch):
    monkeypatch.setattr(bench, "_FEW_ROWS", 2_000)
    assert bench._first_run(str(folder)) > 0  # noqa: SLF001
    kept = sorted(folder.glob("*.nbc"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert bench._first_run(str(folder)) > 0  # noqa: SLF001
    assert [each.stat().st_mtime_ns for each in sorted(folder.glob("*.nbc"))] == [before]
