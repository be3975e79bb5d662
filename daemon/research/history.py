"""Stored history on request: any range of a series, ticks or bars, block by block and from any place on.

A walk holds one block and no snapshot of the store, whatever it walks over: a slow reader costs nothing but its own
patience. Bars that are not stored are made on the way from shorter ones or from trades, in the same constant memory.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, Bars, Timeframe, TsNs
from daemon.core.ticks import COLUMNS, Kind, Stream, Ticks
from daemon.research.moments import time_range
from daemon.research.plans import TRADE_STREAMS, Source, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import Int64s
    from daemon.engine.tick_bars import MeasuredBars, ThresholdBarsState
    from daemon.store.bars import BarStore

# Stored bars are read by stretches of time that would hold this many, and at most so many times longer in sparse ones.
_WINDOW_ROWS: Final = 65_536
_WIDEST: Final = 8
_TRADE_COLUMNS: Final = ("time_ns", "price", "size")
# Rounded up to a bar it is still a time.
_MAX_NS: Final = (1 << 63) - NS_PER_DAY
_MEASURES: Final = ("volume", "notional")
_MEASURED: Final = re.compile(r"(volume|notional):(\d{1,18}(?:\.\d{1,12})?)", re.ASCII)

# What columns are called outside of the house.
_NAMES: Final = {
    "time_ns": "timestamp",
    "start_ns": "timestamp",
    "local_ns": "local_timestamp",
    "end_ns": "end_timestamp",
}
_PRICES: Final = {"open": Kind.PRICE, "high": Kind.PRICE, "low": Kind.PRICE, "close": Kind.PRICE, "volume": Kind.SIZE}
_BARS: Final = {"start_ns": Kind.TIME, **_PRICES}
_MEASURED_BARS: Final = {"start_ns": Kind.TIME, "end_ns": Kind.TIME, **_PRICES}

# Words of the codes 0, 1 and -1 of a side, by `code % 3`.
_TAKERS: Final = ("unknown", "buy", "sell")
_LEVELS: Final = ("unknown", "bid", "ask")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What to give, as a user writes it.

    timeframe: of bars: a length, or `volume:N` and `notional:N`. start, end: as of `moments.time_range`.
    limit: rows at most, None for all. cursor: from `History.next_cursor`, to go on behind it.
    """

    symbol: str
    stream: str = Stream.BARS
    timeframe: str | None = None
    start: str | None = None
    end: str | None = None
    limit: int | None = None
    cursor: str | None = None


class Block(NamedTuple):
    """Rows: equally long columns by name, as of `History.kinds`.

    price_decimals, size_decimals: of the int64 columns of these kinds; None where they are float64.
    """

    columns: dict[str, NDArray[Any]]
    price_decimals: int | None
    size_decimals: int | None

    @property
    def size(self) -> int:
        """How many rows."""
        return self.time_ns.size

    @property
    def time_ns(self) -> Int64s:
        """Time of each row; of bars, when it starts."""
        return self.columns["timestamp"]

    def decimals(self, kind: Kind) -> int | None:
        """Decimals of the columns of a kind: PRICE or SIZE."""
        return self.price_decimals if kind is Kind.PRICE else self.size_decimals

    def rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop) as views."""
        return self._replace(columns={name: column[start:stop] for name, column in self.columns.items()})


R = TypeVar("R", Block, Ticks)


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A place behind a row of a series: its time, and how many rows of that time lie before the place.

    Bars of a volume or notional have no place in time of their own; theirs is that of the trade that closed them.
    """

    instrument: str
    stream: str
    timeframe: str | None
    time_ns: TsNs
    given: int

    def encode(self) -> str:
        """Return the text that clients pass back."""
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @staticmethod
    def decode(text: str) -> Cursor | None:
        """Read a client's text; None for what is no cursor."""
        try:
            cursor = msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Cursor)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            return None
        return cursor if cursor.given > 0 and abs(cursor.time_ns) < _MAX_NS else None


class History:
    """One walk over a series.

    instrument, stream, timeframe: what was asked for, as it is stored; timeframe is None for ticks.
    kinds: the columns of its blocks. sides: what a `side` of 0, 1 and -1 is called, by `code % 3`.
    next_cursor: after a walk that the limit ended, where the next begins; None where nothing is left.

    InvalidRequest with INVALID_SYMBOL, AMBIGUOUS_SYMBOL, INVALID_REQUEST, INVALID_TIMEFRAME, INVALID_DATE_RANGE or
    INVALID_CURSOR; NotFound with INVALID_SYMBOL, NO_ROWS where no such ticks are stored, or NO_BARS where nothing is
    that the bars could be made of. A range without rows is no error: it has no rows.
    """

    def __init__(self, bars: BarStore, query: Query) -> None:
        self._bars = bars
        self.instrument = bars.resolve(query.symbol)
        self.stream = _stream(query.stream)
        self.timeframe = _timeframe(self.stream, query.timeframe)
        self.sides = _LEVELS if self.stream is Stream.DEPTH else _TAKERS
        self.next_cursor: str | None = None
        self._limit = query.limit
        self._start_ns, self._stop_ns = time_range(query.start, query.end)
        self._place = _Place(None, 0)
        if query.cursor is not None:
            self._place = self._resumed(query.cursor)
        self._source = self._chosen()
        self.kinds = {_NAMES.get(name, name): kind for name, kind in self._columns().items()}

    def blocks(self) -> Iterator[Block]:
        """Walk the rows in order; a block may be empty, so that no step takes long."""
        if self._is_measured:
            yield from map(_bar_block, self._measured_steps())
            return
        left = self._limit
        for rows in _behind(self._place, self._steps()):
            if left is not None and rows.size > left:
                self._place.advance(rows.time_ns[:left])
                self.next_cursor = self._cursor()
                yield rows.rows(0, left)
                return
            self._place.advance(rows.time_ns)
            left = None if left is None else left - rows.size
            yield rows

    @property
    def is_timed(self) -> bool:
        """Tell bars of a length of time, which begin with whole seconds, from ticks and other bars."""
        return self.stream is Stream.BARS and not self._is_measured

    # What the rows come from.

    @property
    def _is_measured(self) -> bool:
        return self.timeframe is not None and self.timeframe.startswith(_MEASURES)

    def _columns(self) -> dict[str, Kind]:
        if self.stream is not Stream.BARS:
            return COLUMNS[self.stream]
        return _MEASURED_BARS if self._is_measured else _BARS

    def _chosen(self) -> Source:
        streams = self._bars.ticks.streams(self.instrument)
        if self.stream is not Stream.BARS:
            if self.stream not in streams:
                have = ", ".join(streams) or "no ticks"
                raise NotFound(
                    Code.NO_ROWS,
                    f"{self.instrument.key} has no {self.stream} (stored: {have}): `atlasd data symbols` lists all",
                    {"symbol": self.instrument.key, "stream": self.stream},
                )
            return self.stream
        if not self._is_measured:
            timeframe, stored = Timeframe(str(self.timeframe)), self._bars.timeframes(self.instrument)
            return source_of(timeframe, [*stored, *streams], self.instrument)
        trades = next((stream for stream in TRADE_STREAMS if stream in streams), None)
        if trades is None:
            raise NotFound(
                Code.NO_BARS,
                f"{self.instrument.key} has no trades: {self.timeframe} bars are made of nothing else",
                {"symbol": self.instrument.key, "timeframe": self.timeframe},
            )
        return trades

    def _steps(self) -> Iterator[Block]:
        if self.stream is not Stream.BARS:
            ticks = self._bars.ticks.blocks(self.instrument, self.stream, None, self._first_ns, self._stop_ns)
            return map(_tick_block, ticks)
        timeframe = Timeframe(str(self.timeframe))
        if isinstance(self._source, Stream):
            bars = self._bars_of_trades(self._source, timeframe)
        elif self._source is timeframe:
            bars = self._stored_bars(timeframe, 1)
        else:
            bars = self._longer_bars(self._source, timeframe)
        return map(_bar_block, bars)

    @property
    def _first_ns(self) -> TsNs | None:
        """Time to read from: of rows that were given before the cursor, some may be read again."""
        starts = [each for each in (self._start_ns, self._place.time_ns) if each is not None]
        return max(starts, default=None)

    def _bounds(self, width_ns: int) -> tuple[TsNs | None, TsNs | None]:
        """Round the range up to whole bars: who starts inside of it is given, and given whole."""
        first, stop = self._first_ns, self._stop_ns
        return (
            None if first is None else _rounded_up(first, width_ns),
            None if stop is None else _rounded_up(stop, width_ns),
        )

    def _stored_bars(self, source: Timeframe, width_ns: int) -> Iterator[Bars]:
        """Read stored bars by stretches of time that begin and end at multiples of width_ns."""
        series = self._bars.timeframes(self.instrument)[source]
        first, stop = self._bounds(width_ns)
        at, end = series.first_ns // width_ns * width_ns, series.last_ns + 1
        at = at if first is None else max(first, at)
        stop = end if stop is None else min(stop, end)
        # A row more than the limit tells whether there is a next page.
        ratio = max(1, width_ns // source.ns)
        rows = _WINDOW_ROWS if self._limit is None else min(_WINDOW_ROWS, (self._limit + 2) * ratio)
        step = narrow = _rounded_up(rows * source.ns, width_ns)
        while at < stop:
            bars = self._bars.read(self.instrument, source, at, min(at + step, stop))
            at += step
            yield bars
            if not bars.size:
                step *= 2  # a hole may be years long
            elif bars.size < rows // 2:
                step = min(step * 2, narrow * _WIDEST)
            elif bars.size > rows:
                step = narrow

    def _longer_bars(self, source: Timeframe, timeframe: Timeframe) -> Iterator[Bars]:
        from daemon.engine.bars import lengthen

        for bars in self._stored_bars(source, timeframe.ns):
            yield lengthen(bars, timeframe.ns)

    def _trades(self, source: Stream, first_ns: TsNs | None, stop_ns: TsNs | None) -> Iterator[Ticks]:
        ticks = self._bars.ticks
        return ticks.blocks(self.instrument, source, _TRADE_COLUMNS, first_ns, stop_ns, ticks.buffers())

    def _bars_of_trades(self, source: Stream, timeframe: Timeframe) -> Iterator[Bars]:
        from daemon.engine.tick_bars import TickBars

        built = TickBars([timeframe])
        for rows in self._trades(source, *self._bounds(timeframe.ns)):
            yield built.feed(rows)[timeframe]
        yield built.finish()[timeframe]

    def _measured_steps(self) -> Iterator[MeasuredBars]:
        """Bars of a volume or notional that are complete; pages cut the trades where the last bar of each closed."""
        from daemon.engine.tick_bars import Measure, ThresholdBars

        measure, _, threshold = str(self.timeframe).partition(":")
        built = ThresholdBars(Measure(measure), float(threshold))
        left = self._limit
        trades = self._trades(Stream(str(self._source)), self._first_ns, self._stop_ns)
        for rows in _behind(self._place, trades):
            before = built.state
            bars = built.feed(rows)
            if left == 0 and bars.size:
                self.next_cursor = self._cursor()
                return
            if left is None or bars.size < left:
                self._place.advance(rows.time_ns)
                left = None if left is None else left - bars.size
                yield bars
            elif left:
                self._place.advance(rows.time_ns[: _closing(before, rows, left)])
                yield bars.rows(0, left)
                if bars.size > left:
                    self.next_cursor = self._cursor()
                    return
                left = 0
            else:
                yield bars

    # Places.

    def _cursor(self) -> str:
        key, time_ns = self.instrument.key, self._place.time_ns
        return Cursor(key, self.stream, self.timeframe, 0 if time_ns is None else time_ns, self._place.given).encode()

    def _resumed(self, text: str) -> _Place:
        cursor = Cursor.decode(text)
        mine = (self.instrument.key, self.stream, self.timeframe)
        if cursor is None or (cursor.instrument, cursor.stream, cursor.timeframe) != mine:
            raise InvalidRequest(
                Code.INVALID_CURSOR,
                "the cursor is not one that this series' history returned: start without one",
                {"field": "cursor"},
            )
        return _Place(cursor.time_ns, cursor.given)


class _Place:
    """Where a walk stands: time of the last row passed, None before the first, and how many rows of that time were."""

    def __init__(self, time_ns: TsNs | None, given: int) -> None:
        self.time_ns = time_ns
        self.given = given

    def advance(self, times: Int64s) -> None:
        """Pass rows, in ascending time."""
        if not times.size:
            return
        last_ns = int(times[-1])
        count = times.size - int(np.searchsorted(times, last_ns))
        goes_on = count == times.size and last_ns == self.time_ns
        self.given = count + self.given * goes_on
        self.time_ns = last_ns


def _behind(place: _Place, steps: Iterator[R]) -> Iterator[R]:
    """Leave out the rows before a place; the steps begin at its time."""
    time_ns, left = place.time_ns, place.given
    for rows in steps:
        if left and time_ns is not None:
            of_that_time = int(np.searchsorted(rows.time_ns, time_ns, side="right"))
            given = min(left, of_that_time)
            left = left - given if of_that_time == rows.size else 0
            yield rows.rows(given, rows.size)
        else:
            yield rows


def _closing(before: ThresholdBarsState, rows: Ticks, count: int) -> int:
    """Count the rows that it takes to close `count` bars, going on from a state; it is known that they do."""
    from daemon.engine.tick_bars import ThresholdBars

    low, high = 1, rows.size
    while low < high:
        middle = (low + high) // 2
        closed = ThresholdBars(before.measure, before.threshold, before).feed(rows.rows(0, middle)).size
        low, high = (low, middle) if closed >= count else (middle + 1, high)
    return low


def _tick_block(rows: Ticks) -> Block:
    names = [_NAMES.get(name, name) for name in COLUMNS[rows.stream]]
    return Block(dict(zip(names, rows.columns, strict=True)), rows.price_decimals, rows.size_decimals)


def _bar_block(bars: Bars | MeasuredBars) -> Block:
    return Block({_NAMES.get(name, name): column for name, column in bars._asdict().items()}, None, None)


def _stream(name: str) -> Stream:
    try:
        return Stream(name)
    except ValueError:
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"stream `{name}` is not one of {', '.join(Stream)}", {"field": "stream"}
        ) from None


def _timeframe(stream: Stream, name: str | None) -> str | None:
    """Check a timeframe: ticks have none, bars need one."""
    if stream is not Stream.BARS:
        if name is None:
            return None
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"{stream} have no timeframe: leave it out, or ask for bars", {"field": "timeframe"}
        )
    if name in tuple(Timeframe):
        return name
    measured = _MEASURED.fullmatch(name or "")
    if measured and float(measured[2]) > 0:
        return name
    what = "is missing" if name is None else f"`{name}` is not one"
    raise InvalidRequest(
        Code.INVALID_TIMEFRAME,
        f"bars need a timeframe, which {what}: {', '.join(Timeframe)}, or volume:N or notional:N with N above 0",
        {"timeframe": name},
    )


def _rounded_up(time_ns: TsNs, width_ns: int) -> TsNs:
    return -(-time_ns // width_ns) * width_ns
