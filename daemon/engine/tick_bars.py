"""Bars from ticks in one streaming pass: of several lengths of time at once, or of a volume or notional each.

A pass takes blocks of any size, keeps nothing but the bars that are still open, and gives the same bars however the
ticks are cut into blocks, stopped and resumed. An interval without a tick has no bar: nothing is invented.

Exactness. Prices are the float64 nearest to the venue's decimal text (integer / 10**decimals; times the inverse would
miss it by a bit now and then). Sizes are summed as whole numbers of 10^-decimals and divided once: a volume is the
float64 nearest to the exact sum while that, counted in the smallest unit met with, is below 2^53; beyond, it degrades
to a rounded sum and never overflows. Each length sums in row order on its own, so that sizes that come as floats give
the same bits whatever other lengths are asked for. Decimals up to 22: no larger power of ten is an exact float.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from math import inf, prod
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.core.market import NS_PER_DAY, Bars, Float64s, Int64s, Timeframe, TsNs
from daemon.core.ticks import Stream, Ticks
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Five rows of numbers by bar: open, high, low, close, total. Before `_Block.bars` in the units of a block.
Values: TypeAlias = NDArray[np.float64]

# As many sums as there are timeframes, kept whether asked for or not: a loop of fixed length is unrolled, and the whole
# half as fast again. A literal, because the kernel cache would not notice a timeframe more in another file.
_SUMS: Final = 6
# Beyond this the bucket of a day would start or end outside of 64 bits.
_MAX_NS: Final = (1 << 63) - 1 - NS_PER_DAY


class OpenBar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bar that the next tick may still change; JSON and back keeps every bit of it.

    open, high, low, close: quote currency. total: its sizes, in units of 10^-decimals.
    """

    start_ns: TsNs
    open: float
    high: float
    low: float
    close: float
    total: float
    decimals: int

    @property
    def bars(self) -> Bars:
        """The bar as it stands, as bars of one row."""
        row = (self.open, self.high, self.low, self.close, self.total / _power(self.decimals))
        return Bars(np.array([self.start_ns], dtype=np.int64), *np.array(row).reshape(5, 1))


class TickBarsState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a pass of `TickBars` stands. last_ns: time of the last tick, None before the first."""

    last_ns: TsNs | None = None
    bars: dict[Timeframe, OpenBar] = {}


class TickBars:
    """Bars of several lengths from one pass over ticks in time order; feed blocks, take what is complete.

    Bars are aligned to multiples of their length since 1970 UTC and labelled by their start.
    state: where the pass stands; a value that later feeds replace, so keep it, and go on from it in another pass.
    """

    def __init__(self, timeframes: Sequence[Timeframe], state: TickBarsState | None = None) -> None:
        """Begin a pass, or go on from `state`; ValueError for no timeframes, or if the state is of other ones."""
        # From short to long, where each length is a multiple of the one before: the kernel relies on it.
        self._timeframes = sorted(set(timeframes), key=lambda timeframe: timeframe.ns)
        self._widths_ns = np.array([timeframe.ns for timeframe in self._timeframes], dtype=np.int64)
        self._scratch = _Scratch()
        self.state = state or TickBarsState()
        if not self._timeframes:
            raise ValueError("no timeframes to build bars of")
        if self.state.bars and set(self.state.bars) != set(self._timeframes):
            raise ValueError(f"the state is of other timeframes: {', '.join(self.state.bars)}")

    def feed(self, rows: Ticks) -> dict[Timeframe, Bars]:
        """Take the next ticks; return the complete bars: those that one of these ticks has left behind.

        rows: trades in ascending time, equal times included; decimals may differ from block to block. Where integers
        and floats meet in one bar, its volume is rounded.
        ValueError, and nothing has changed, for a row that goes back in time, for floats that are not finite, and for
        ticks that are no trades.
        """
        if not rows.size:
            return {timeframe: _no_bars() for timeframe in self._timeframes}
        _check(rows, self.state.last_ns)
        before = self.state.bars
        going_on = {key: bar for key, bar in before.items() if int(rows.time_ns[0]) < bar.start_ns + key.ns}
        block = self._scratch.block(rows, max((bar.decimals for bar in going_on.values()), default=0))
        complete, still_open = {}, {}
        for timeframe, (start_ns, values) in zip(self._timeframes, self._cut(block, going_on), strict=True):
            carried = going_on.get(timeframe)
            bars = block.bars(start_ns, values, carried)
            still_open[timeframe] = block.open_bar(bars, float(values[4, -1]), carried)
            closed = bars.rows(0, bars.size - 1)
            left_behind = timeframe in before and carried is None
            complete[timeframe] = _concatenate([before[timeframe].bars, closed]) if left_behind else closed
        self.state = TickBarsState(int(block.time_ns[-1]), still_open)
        return complete

    def finish(self) -> dict[Timeframe, Bars]:
        """Return the last, perhaps partial bar of each length, none before the first tick; the pass may go on."""
        bars = self.state.bars
        return {key: bars[key].bars if key in bars else _no_bars() for key in self._timeframes}

    def _cut(self, block: _Block, going_on: dict[Timeframe, OpenBar]) -> Iterator[tuple[Int64s, Values]]:
        """Start times and values of the bars in a block, by timeframe; the totals go on from the open bars."""
        totals = np.zeros(_SUMS)
        totals[: self._widths_ns.size] = [block.total_of(going_on.get(timeframe)) for timeframe in self._timeframes]
        # Each length has room for as many bars as its intervals, or the ticks, could fill.
        span_ns = int(block.time_ns[-1]) - int(block.time_ns[0])
        room = [min(block.time_ns.size, span_ns // timeframe.ns + 2) for timeframe in self._timeframes]
        offsets = np.cumsum([0, *room[:-1]], dtype=np.int64)
        start_ns = self._scratch.floats("start_ns", sum(room)).view(np.int64)
        values = self._scratch.floats("values", 5, sum(room))
        ends = _cut_by_time(block.time_ns, block.price, block.size, self._widths_ns, totals, offsets, start_ns, values)
        for start, end in zip(offsets, ends, strict=True):
            yield start_ns[start:end], values[:, start:end]


def bars_of(rows: Iterable[Ticks], timeframe: Timeframe) -> Bars:
    """Return all bars of one length, the open one at the end included; errors as of `TickBars.feed`."""
    built = TickBars([timeframe])
    parts = [built.feed(block)[timeframe] for block in rows]
    return _concatenate([*parts, built.finish()[timeframe]])


class Measure(StrEnum):
    """What a threshold is of. VOLUME: sizes, base units. NOTIONAL: price times size, quote units ("dollar bars")."""

    VOLUME = "volume"
    NOTIONAL = "notional"


class MeasuredBars(NamedTuple):
    """Bars that each hold about as much volume or notional: equally long columns in the order of their ticks.

    start_ns, end_ns: (n,) int64, nanoseconds UTC, the times of its first and its last tick. Both ascend, but bars may
    share a start, and one may start when another ends: a burst of trades at one time can fill several.
    open, high, low, close: (n,) float64, quote currency. volume: (n,) float64, base units.
    """

    start_ns: Int64s
    end_ns: Int64s
    open: Float64s
    high: Float64s
    low: Float64s
    close: Float64s
    volume: Float64s

    @property
    def size(self) -> int:
        """How many bars; `len` counts columns, as of any tuple."""
        return self.start_ns.size

    def rows(self, start: int, stop: int) -> MeasuredBars:
        """Rows [start, stop) as views."""
        return MeasuredBars._make(column[start:stop] for column in self)


class ThresholdBarsState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a pass of `ThresholdBars` stands.

    last_ns: time of the last tick, None before the first. bar: the open one, None where the last tick closed it.
    measured: what the open bar holds of the measure, in units of 10^-measured_decimals.
    """

    measure: Measure
    threshold: float
    last_ns: TsNs | None = None
    bar: OpenBar | None = None
    measured: float = 0.0
    measured_decimals: int = 0


class ThresholdBars:
    """Volume or notional bars from one pass over ticks in time order: same protocol as `TickBars`.

    A bar closes with the tick that brings its measure to the threshold or above; that tick is not split, and the next
    bar begins from nothing. Notional is summed as sizes are: as whole numbers of 10^-(price and size decimals).
    state: where the pass stands; a value that later feeds replace.
    """

    def __init__(self, measure: Measure, threshold: float, state: ThresholdBarsState | None = None) -> None:
        """Begin a pass, or go on from `state`.

        threshold: base or quote units, taken as the decimal it prints as, so that 0.3 is reached by three tenths.
        ValueError for one that is not positive and finite, or if the state is of another one.
        """
        threshold = float(threshold)
        if not 0 < threshold < inf:
            raise ValueError(f"a threshold of {threshold} would never or always be reached")
        self._scratch = _Scratch()
        self.state = state or ThresholdBarsState(measure, threshold)
        if (self.state.measure, self.state.threshold) != (measure, threshold):
            raise ValueError(f"the state is of another threshold: {self.state.measure} {self.state.threshold}")

    def feed(self, rows: Ticks) -> MeasuredBars:
        """Take the next ticks; return the bars that they close. rows and errors: as of `TickBars.feed`."""
        if not rows.size:
            return _measured(_no_bars(), np.empty(0, dtype=np.int64))
        _check(rows, self.state.last_ns)
        state, carried = self.state, self.state.bar
        block = self._scratch.block(rows, carried.decimals if carried else 0)
        is_notional = state.measure is Measure.NOTIONAL
        own_decimals = block.size_decimals + block.price_decimals * is_notional
        decimals = max(own_decimals, state.measured_decimals)
        unit = _power(decimals - own_decimals)
        limit = float(Decimal(repr(state.threshold)).scaleb(decimals))
        held = (state.measured * _power(decimals - state.measured_decimals), block.total_of(carried))
        times = self._scratch.floats("times", 2, rows.size).view(np.int64)
        values = self._scratch.floats("values", 5, rows.size)
        made, measured = _cut_by_measure(*block[:3], is_notional, unit, limit, *held, times, values)
        bars = block.bars(times[0, :made], values[:, :made], carried)
        is_open = measured < limit
        self.state = ThresholdBarsState(state.measure, state.threshold, int(block.time_ns[-1]))
        if is_open:
            bar = block.open_bar(bars, float(values[4, made - 1]), carried)
            # As in `open_bar`: decimals that no tick of the bar needs go.
            surplus = 0 if carried and made == 1 else decimals - own_decimals + block.extra
            left = {"bar": bar, "measured": measured / _power(surplus), "measured_decimals": decimals - surplus}
            self.state = msgspec.structs.replace(self.state, **left)
        return _measured(bars, times[1, :made].copy()).rows(0, made - is_open)

    def finish(self) -> MeasuredBars:
        """Return the open bar as it stands, none where the last tick closed one; the pass may go on."""
        bars = self.state.bar.bars if self.state.bar else _no_bars()
        return _measured(bars, np.full(bars.size, self.state.last_ns or 0, dtype=np.int64))


class _Block(NamedTuple):
    """Ticks as kernels take them: (n,) int64 and float64, C-contiguous and writable.

    price, size: whole numbers of 10^-decimals, or floats at 0 decimals.
    extra: how many of size_decimals the rows did not come with, added to go on with an open bar that has them.
    """

    time_ns: Int64s
    price: Float64s
    size: Float64s
    price_decimals: int
    size_decimals: int
    extra: int

    def total_of(self, carried: OpenBar | None) -> float:
        """Sizes of the open bar at this block's decimals, 0 for none."""
        return carried.total * _power(self.size_decimals - carried.decimals) if carried else 0.0

    def bars(self, start_ns: Int64s, values: Values, carried: OpenBar | None) -> Bars:
        """Bars from values in this block's units, the first joined to the open one, whose total it holds already."""
        units = np.array([[_power(self.price_decimals)]] * 4 + [[_power(self.size_decimals)]])
        bars = Bars(start_ns.copy(), *(values / units))
        if carried:
            bars.start_ns[0], bars.open[0] = carried.start_ns, carried.open
            bars.high[0] = max(bars.high[0], carried.high)
            bars.low[0] = min(bars.low[0], carried.low)
        return bars

    def open_bar(self, bars: Bars, total: float, carried: OpenBar | None) -> OpenBar:
        """Return the last bar as the one to carry on. total: its sizes at this block's decimals."""
        opened, high, low, close = (float(column[-1]) for column in bars[1:5])
        # The extra decimals go where no older tick needs them: one block that has many would leave them to all later
        # bars, with less room below 2^53.
        extra = 0 if carried and bars.size == 1 else self.extra
        decimals = self.size_decimals - extra
        return OpenBar(int(bars.start_ns[-1]), opened, high, low, close, total / _power(extra), decimals)


class _Scratch:
    """Arrays that each block writes anew: fresh memory for each would take up to half of the time."""

    def __init__(self) -> None:
        self._held: dict[str, Float64s] = {}

    def floats(self, name: str, *shape: int) -> Float64s:
        """Return the array of that name, with whatever is in it; C-contiguous and writable."""
        size = prod(shape)
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size)
        return self._held[name][:size].reshape(shape)

    def block(self, rows: Ticks, decimals: int) -> _Block:
        """Copy columns, whatever their layout, sizes at no less than these decimals.

        Integers become float64, exact below 2^53: so each kernel is compiled just once.
        """
        time_ns = self.floats("time_ns", rows.size).view(np.int64)
        price, size = self.floats("price", rows.size), self.floats("size", rows.size)
        time_ns[:], price[:], size[:] = rows.time_ns, rows.column("price"), rows.column("size")
        extra = max(0, decimals - (rows.size_decimals or 0))
        if extra:
            size *= _power(extra)
        return _Block(time_ns, price, size, rows.price_decimals or 0, (rows.size_decimals or 0) + extra, extra)


def _check(rows: Ticks, last_ns: TsNs | None) -> None:
    """Guard the kernels' door: ValueError that names the first row at fault."""
    if rows.stream not in (Stream.TRADES, Stream.AGG_TRADES):
        raise ValueError(f"bars are built from trades, not from {rows.stream}")
    time_ns = rows.time_ns
    if last_ns is not None and time_ns[0] < last_ns:
        raise ValueError(f"row 0 goes back in time: {time_ns[0]} after {last_ns}")
    backwards = time_ns[1:] < time_ns[:-1]
    if backwards.any():
        row = int(np.argmax(backwards)) + 1
        raise ValueError(f"row {row} goes back in time: {time_ns[row]} after {time_ns[row - 1]}")
    if time_ns[0] < -_MAX_NS or time_ns[-1] > _MAX_NS:
        raise ValueError("a time within a day of the end of 64 bits has no bar")
    for name, decimals in (("price", rows.price_decimals), ("size", rows.size_decimals)):
        finite = np.isfinite(rows.column(name)) if decimals is None else np.True_
        if not finite.all():
            raise ValueError(f"the {name} of row {int(np.argmin(finite))} is not a finite number")


def _power(decimals: int) -> float:
    """Return 10^decimals, exact up to 22; by way of the integer, as not every platform's `pow` is exact."""
    return float(10**decimals)


def _no_bars() -> Bars:
    return Bars(np.empty(0, dtype=np.int64), *np.empty((5, 0)))


def _measured(bars: Bars, end_ns: Int64s) -> MeasuredBars:
    return MeasuredBars(bars.start_ns, end_ns, *bars[1:])


def _concatenate(parts: Sequence[Bars]) -> Bars:
    return Bars._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


@kernel
def _cut_by_time(
    time_ns: Int64s,
    price: Float64s,
    size: Float64s,
    widths_ns: Int64s,
    totals: Float64s,
    offsets: Int64s,
    out_start_ns: Int64s,
    out_values: Values,
) -> Int64s:
    """Cut ticks into bars of several widths.

    time_ns, price, size: (n,), n >= 1, ascending in time, finite.
    widths_ns: (levels,), ascending, each a multiple of the one before.
    totals: (_SUMS,) what the first bar of each width holds already; overwritten.
    offsets: (levels,) where each width's bars begin in out_start_ns (m,) and out_values (5, m): open, high, low,
    close, total; there is room for all, the perhaps partial ones at both ends included.
    Returns (levels,) where each width's bars end.
    """
    levels = widths_ns.size
    rows = offsets - 1
    ends_ns = np.empty(levels, dtype=np.int64)
    begun = levels  # so many widths, from the shortest, begin a bar at tick i
    i = 0
    while i < time_ns.size:
        for level in range(begun):
            rows[level] += 1
            row = rows[level]
            # Floor division: times before 1970 round towards the past as well.
            out_start_ns[row] = time_ns[i] // widths_ns[level] * widths_ns[level]
            ends_ns[level] = out_start_ns[row] + widths_ns[level]
            out_values[:3, row] = price[i]
            if i > 0:
                totals[level] = 0.0
        end_ns = ends_ns[0]
        high = low = price[i]
        while i < time_ns.size and time_ns[i] < end_ns:
            high = max(high, price[i])
            low = min(low, price[i])
            for level in range(_SUMS):
                totals[level] += size[i]
            i += 1
        # The shortest bar is complete, or the ticks are: pass it on to the longer ones, as far up as bars end here.
        begun = 0
        while begun < levels:
            row = rows[begun]
            high = out_values[1, row] = max(high, out_values[1, row])
            low = out_values[2, row] = min(low, out_values[2, row])
            out_values[3, row] = price[i - 1]
            out_values[4, row] = totals[begun]
            if i < time_ns.size and time_ns[i] < ends_ns[begun]:
                break
            begun += 1
    return rows + 1


@kernel
def _cut_by_measure(
    time_ns: Int64s,
    price: Float64s,
    size: Float64s,
    is_notional: bool,  # noqa: FBT001 - kernels take scalars by place
    unit: float,
    limit: float,
    measured: float,
    total: float,
    out_times: Int64s,
    out_values: Values,
) -> tuple[int, float]:
    """Cut ticks into bars that end with the tick that brings their measure to the limit.

    time_ns, price, size: (n,), n >= 1, finite. is_notional: measure price times size instead of size.
    unit: what a measure of one is in the unit of limit and measured.
    measured, total: measure and sizes that the first bar holds already.
    out_times: (2, n) first and last time; out_values: (5, n) open, high, low, close, total.
    Returns how many bars there are, and the measure of the last: below the limit if it is still open.
    """
    row = -1
    i = 0
    while i < time_ns.size:
        if row >= 0:
            measured = total = 0.0
        row += 1
        out_times[0, row] = time_ns[i]
        out_values[0, row] = high = low = price[i]
        while i < time_ns.size:
            high = max(high, price[i])
            low = min(low, price[i])
            total += size[i]
            measured += (size[i] * price[i] if is_notional else size[i]) * unit
            i += 1
            if measured >= limit:
                break
        out_times[1, row] = time_ns[i - 1]
        out_values[1, row] = high
        out_values[2, row] = low
        out_values[3, row] = price[i - 1]
        out_values[4, row] = total
    return row + 1, measured
