"""What an equity curve and the positions beneath it show: daily and monthly returns, drawdowns, exposure, rows to draw.

Days and months are UTC. A bar covers [start, close), so a sample at a boundary belongs to the period that it ends:
one year of bars is 365 days, not 366. Equity is finite, time ascends; a run that ends in ruin has returns too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s, Int64s, TsNs


class DailyReturns(NamedTuple):
    """day_ns: (n,) int64, start of each UTC day that has a sample. returns: (n,) float64, fractions."""

    day_ns: Int64s
    returns: Float64s


class MonthFigures(NamedTuple):
    """month: `2023-01`, UTC."""

    month: str
    return_percent: float


def daily_returns(time_ns: Int64s, equity: Float64s, initial: float, start_ns: TsNs) -> DailyReturns:
    """Take returns from the last sample of a UTC day to the last of the next one that has any.

    time_ns: (n,) int64, closes of bars. equity: (n,) float64, quote currency. initial: capital before the first day,
    > 0. start_ns: when the run began.
    A day that ends at zero or below is the ruin: it returns -1 or less, and every later day 0, whatever the equity.
    """
    ends = _within(time_ns[[0, -1]], start_ns) // NS_PER_DAY if time_ns.size else np.zeros(2, dtype=np.int64)
    stop_ns = np.arange(ends[0] + 1, ends[1] + 2) * NS_PER_DAY
    # Days are few and times ascend: looking for the days' ends spares a division a bar.
    rows = np.unique(np.searchsorted(time_ns, stop_ns, side="right") - 1) if time_ns.size else ends[:0]
    day = _within(time_ns[rows], start_ns) // NS_PER_DAY
    return DailyReturns(day * NS_PER_DAY, _returns(equity[rows], initial))


def monthly_returns(time_ns: Int64s, equity: Float64s, initial: float, start_ns: TsNs) -> list[MonthFigures]:
    """Return of each UTC month that has a sample; otherwise as `daily_returns`."""
    month = _within(time_ns, start_ns).astype("datetime64[ns]").astype("datetime64[M]")
    rows = _last_rows(month.astype(np.int64))
    percent = 100 * _returns(equity[rows], initial)
    return [MonthFigures(*row) for row in zip(month[rows].astype(str).tolist(), percent.tolist(), strict=True)]


def _within(time_ns: Int64s, start_ns: TsNs) -> Int64s:
    """Put each close before the boundary it may lie on, but none before the start."""
    return np.asarray(np.maximum(time_ns - 1, start_ns))


def _last_rows(period: Int64s) -> Int64s:
    return np.flatnonzero(np.diff(period, append=period[-1:] + 1))


def _returns(last: Float64s, initial: float) -> Float64s:
    before = np.concatenate(([initial], last[:-1]))[: last.size]
    ruined = np.cumsum(last <= 0) - (last <= 0) > 0
    return np.where(ruined, 0.0, last / np.where(ruined, 1.0, before) - 1)


class Drawdowns(NamedTuple):
    """One row a sample.

    peak: (n,) float64, highest equity so far. drawdown: (n,) float64, peak - equity, quote currency, >= 0.
    drawdown_percent: (n,) float64, of the peak. duration_ns: (n,) int64, since the equity was last at its peak.
    """

    peak: Float64s
    drawdown: Float64s
    drawdown_percent: Float64s
    duration_ns: Int64s

    @property
    def max_drawdown(self) -> float:
        """Largest in money; 0 without samples."""
        return float(self.drawdown.max(initial=0.0))

    @property
    def max_drawdown_percent(self) -> float:
        """Largest in percent, maybe another one than in money; 0 without samples."""
        return float(self.drawdown_percent.max(initial=0.0))


def drawdowns(time_ns: Int64s, equity: Float64s, peak: float, peak_ns: TsNs) -> Drawdowns:
    """How far below its highest value so far the equity is.

    time_ns: (n,) int64, ascending. equity: (n,) float64. peak, peak_ns: highest value before the first sample, > 0, and
    when it was last reached: initial capital and start, or the last peak of the chunk before and its time less its
    duration, so that a curve of any length is done chunk by chunk.
    """
    highest = np.maximum.accumulate(np.concatenate(([peak], equity)))[1:]
    drawdown = highest - equity
    reached = np.maximum.accumulate(np.where(equity >= highest, time_ns, peak_ns))
    return Drawdowns(highest, drawdown, 100 * (drawdown / highest), time_ns - reached)


def exposure_percent(entry_ns: Int64s, exit_ns: Int64s, start_ns: TsNs, stop_ns: TsNs) -> float:
    """Share of [start, stop) with at least one position open, percent; 0 of an empty range.

    entry_ns, exit_ns: (n,) int64, one pair a position, in any order; positions may overlap and stand out of the range.
    """
    if stop_ns <= start_ns:
        return 0.0
    order = np.argsort(entry_ns, kind="stable")
    opened, closed = np.clip(entry_ns[order], start_ns, stop_ns), np.clip(exit_ns[order], start_ns, stop_ns)
    covered_to = np.maximum.accumulate(np.concatenate(([start_ns], closed)))[:-1]
    covered = np.maximum(closed - np.maximum(opened, covered_to), 0).sum()
    return 100 * (int(covered) / (stop_ns - start_ns))


def decimate(time_ns: Int64s, columns: Sequence[Float64s], most: int = 2_000) -> Int64s:
    """Choose no more than `most` rows so that extremes survive.

    time_ns: (n,) int64, ascending. columns: each (n,) float64, finite. most: >= 2 + 2 a column, ValueError otherwise.
    Returns ascending rows: all where they are few enough; else the first, the last, and of each column the first row of
    the smallest and of the largest value in each of equally long spans of time.
    """
    if most < 2 + 2 * len(columns):
        raise ValueError(f"most is {most}: {len(columns)} columns take {2 + 2 * len(columns)} rows at least")
    if time_ns.size <= most:
        return np.arange(time_ns.size)
    spans = (most - 2) // max(2 * len(columns), 1)
    width = (int(time_ns[-1]) - int(time_ns[0])) // spans + 1
    starts = np.flatnonzero(np.diff((time_ns - time_ns[0]) // width, prepend=-1))
    rows = [np.array([0, time_ns.size - 1])]
    for column in columns:
        rows += [_first_rows(column, best.reduceat(column, starts), starts) for best in (np.minimum, np.maximum)]
    return np.unique(np.concatenate(rows))


def extremes(time_ns: Int64s, column: Float64s, start_ns: TsNs, width_ns: int) -> Int64s:
    """Choose the rows of the smallest and of the largest value in each span of `width_ns` from `start_ns` on.

    time_ns: (n,) int64, ascending, none before start_ns. column: (n,) float64, finite. width_ns: > 0.
    Returns rows in ascending order, two a span at most: of equal values the first. Taken of rows that were chosen so,
    from parts of a series, the same spans give the extremes of the whole.
    """
    if not time_ns.size:
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.diff((time_ns - start_ns) // width_ns, prepend=-1))
    rows = [_first_rows(column, best.reduceat(column, starts), starts) for best in (np.minimum, np.maximum)]
    return np.unique(np.concatenate(rows))


def _first_rows(column: Float64s, sought: Float64s, starts: Int64s) -> Int64s:
    """Row of the first `sought` value of each span."""
    hits = np.flatnonzero(column == np.repeat(sought, np.diff(starts, append=column.size)))
    return np.asarray(hits[np.searchsorted(hits, starts)])
