"""The bench of the backtester: what it measures happens, not how fast it is."""

import math

import pytest

from daemon.app import bench_backtest
from daemon.app.bench_queue import hundred_at_once

UNITS = ("_rows", "_per_s", "_fills", "_bars", "_s", "_mb", "_hftbacktest", "_backtests", "_each", "_answers", "_ms")


def check(figures):
    for name, value in figures.items():
        assert name.endswith(UNITS), name
        assert math.isfinite(value), name
        assert value > 0, name


def test_trades_are_filled_from_arrays_and_from_the_store(tmp_path):
    rows = bench_backtest._trades(60_000)  # noqa: SLF001 - the whole bench takes half a minute
    arrays = bench_backtest._arrays(rows)  # noqa: SLF001
    check(arrays)
    assert arrays["trades_fills"] >= 2 * (arrays["trades_bars"] // 600)
    check(bench_backtest._from_store(tmp_path / "ticks", rows))  # noqa: SLF001


def test_many_backtests_are_done_while_the_daemon_answers():
    figures = hundred_at_once(4, 3_000)
    check(figures)
    assert figures["many_backtests"] == 4


def test_one_that_does_not_complete_ends_the_bench_with_its_reason(monkeypatch):
    from daemon.app import bench_queue
    from daemon.core.errors import JobFailed

    monkeypatch.setitem(bench_queue._CONFIG["backtest"], "symbols", ["NOWHERE"])  # noqa: SLF001
    with pytest.raises(JobFailed, match="NOWHERE"):
        hundred_at_once(1, 100)
