"""One symbol of a backtest, read from the store: its bars and what a strategy says at their closes, its ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core import backtest
from daemon.core.errors import Code, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, Bars, Float64s, Int64s, Timeframe, TsNs
from daemon.core.strategy import Strategy
from daemon.core.ticks import Stream
from daemon.engine import conditions
from daemon.engine.columns import ATR, lookback
from daemon.engine.deciding import ENTER_LONG, ENTER_SHORT, EXIT_LONG, EXIT_SHORT
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.ladders import NO_LADDERS, Ladders
from daemon.engine.orders import NEVER_NS, ORDER, Kind
from daemon.engine.program import NEVER, compile_strategies
from daemon.engine.settings import exit_distances
from daemon.engine.simulate import Decisions
from daemon.engine.trailing import LEAST_BARS, daily_figures
from daemon.research.backtest_books import Books, read_books
from daemon.research.plans import TRADE_STREAMS
from daemon.research.selection import digest_of, select
from daemon.store.funding import FundingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.backtest import BacktestSpec, Market, Rules
    from daemon.core.market import Instrument
    from daemon.core.ports import Hole
    from daemon.engine.orders import Records
    from daemon.engine.program import Program
    from daemon.research.selection import Selection
    from daemon.store.bars import BarStore

Bytes = np.typing.NDArray[np.uint8]

_SATURDAY, _SUNDAY = 2, 3  # 1970-01-01 was a Thursday
_WEEK: Final = 7

_BITS: Final = (ENTER_LONG, ENTER_SHORT, EXIT_LONG, EXIT_SHORT)
_QUOTE_COLUMNS: Final = ("time_ns", "bid", "ask")
_TRADE_COLUMNS: Final = ("time_ns", "price", "size")


class _Wanted(NamedTuple):
    """Bars to select, as `selection.select` asks for."""

    instrument: Instrument
    timeframe: Timeframe
    source: Timeframe | Stream
    start_ns: TsNs | None
    stop_ns: TsNs | None


class Used(NamedTuple):
    """Rows beside bars that a run read: what they are, how many, the times of the first and the last, their digest."""

    source: str
    rows: int
    first_ns: TsNs
    last_ns: TsNs
    digest: str


class Loaded(NamedTuple):
    """A symbol, ready to be simulated.

    bars: those that are traded, without the warm-up. volume: their volumes in base units. digest: of every bar that was
    read, as it is stored, warm-up included. warmup: how many bars before the first were read. holes: known ones in the
    range. used: what else was read, complete once the run is over. partial: derived bars that what is stored covers in
    part. missing_books: bars without a whole book, where slippage goes by it.
    """

    market: Market
    bars: Bars
    volume: Float64s
    simulated: Decisions
    digest: str
    warmup: int
    holes: tuple[Hole, ...]
    used: list[Used]
    partial: int
    missing_books: int = 0


class Series(NamedTuple):
    """What a symbol's bars say, whatever a strategy makes of them.

    whole: bars as they were read, the first `warmup` before the range. volume: base units. sigma, day_volume: of the
    costs, as of `engine.trailing`. All of (n,) rows of `whole`. digest, holes, partial: as of `Loaded`. books: at the
    starts of `bars`, None where slippage does not go by them.
    """

    market: Market
    whole: Bars
    warmup: int
    volume: Float64s
    sigma: Float64s
    day_volume: Float64s
    funding_ns: Int64s
    funding_rate: Float64s
    digest: str
    holes: tuple[Hole, ...]
    partial: int
    books: Books | None = None

    @property
    def bars(self) -> Bars:
        """Those that are traded."""
        return self.whole.rows(self.warmup, self.whole.size)


def read_series(store: BarStore, spec: BacktestSpec, market: Market, warmup: int) -> Series:
    """Read a symbol's bars in the range, and as far as they are stored so many before; NotFound NO_BARS or NO_DEPTH."""
    selection, first = _with_warmup(store, spec, market, warmup)
    whole = selection.bars
    if first == whole.size:
        raise NotFound(
            Code.NO_BARS,
            f"{market.instrument.key} has no {spec.timeframe} bars in the dates asked for: `atlasd data symbols` shows "
            "what is stored",
            {"symbol": market.instrument.key, "timeframe": spec.timeframe},
        )
    volume = whole.volume
    if market.volume_unit == "quote":
        volume = volume / ((whole.high + whole.low + whole.close) / 3)
    sigma, day_volume = daily_figures(whole, volume, spec.timeframe.ns, spec.calendar_days or year_days(whole.start_ns))
    bars = whole.rows(first, whole.size)
    return Series(
        market,
        whole,
        first,
        volume,
        sigma,
        day_volume,
        *_funding(store, spec, market, int(bars.start_ns[0]), int(bars.start_ns[-1])),
        selection.digest,
        _holes(store, spec, market, bars),
        len(selection.partial_buckets),
        _books(store, spec, market, bars),
    )


def digests_of(series: Sequence[Series]) -> list[str]:
    """Return digests of all rows that were read: bars, and funding rates where there are any."""
    paid = [digest_of((each.funding_ns, each.funding_rate)) for each in series if each.funding_ns.size]
    books = [digest_of(each.books.ladders) for each in series if each.books is not None]
    return [each.digest for each in series] + paid + books


def decided(spec: BacktestSpec, series: Series, checkpoint: Callable[[], None] = lambda: None) -> Loaded:
    """Decide, bar by bar, what a strategy says of a series.

    Memory: 8 bytes a bar for each column that the strategy uses, and 33 that stay.
    """
    whole, first = series.whole, series.warmup
    checkpoint()
    columns = IndicatorColumns(whole)
    if isinstance(spec.program, backtest.Rules):
        signals = _signals(_compiled(spec.program), columns, checkpoint)[first:]
    else:
        signals = _regular(spec.program, whole.size - first)
    atr = np.full(whole.size, np.nan)
    if uses_atr(spec):
        atr = np.asarray(columns[ATR], dtype=np.float64)
    del columns
    bars = series.bars
    volume = np.ascontiguousarray(series.volume[first:])
    simulated = Decisions(
        close_ns=bars.start_ns + spec.timeframe.ns,
        values=np.array([*bars[1:5], volume]),
        signals=signals,
        atr=np.ascontiguousarray(atr[first:]),
        sigma=np.ascontiguousarray(series.sigma[first:]),
        day_volume=np.ascontiguousarray(series.day_volume[first:]),
        funding_ns=series.funding_ns,
        funding_rate=series.funding_rate,
        ladders=_ladders(series),
    )
    used = []
    paid_ns = series.funding_ns
    if paid_ns.size:
        digest = digest_of((paid_ns, series.funding_rate))
        used.append(Used("funding", paid_ns.size, int(paid_ns[0]), int(paid_ns[-1]), digest))
    missing = 0
    if (books := series.books) is not None:
        used.append(Used(Stream.DEPTH, books.rows, books.first_ns, books.last_ns, digest_of(books.ladders)))
        missing = books.missing
    known = series.digest, first, series.holes, used, series.partial, missing
    return Loaded(series.market, bars, volume, simulated, *known)


def grid_orders(spec: BacktestSpec, simulated: Sequence[Decisions]) -> Records | None:
    """Return the first orders of a grid, sent at the first close of each symbol; None for another program.

    Exits in ATR take that of the first bar; where it has none yet they are off.
    """
    grid = spec.program
    if not isinstance(grid, backtest.Grid):
        return None
    share = spec.account.initial_capital / len(simulated) * grid.fraction / grid.levels
    sides = (1, -1) if grid.sides == "both" else (1,)
    made = []
    for symbol, each in enumerate(simulated):
        if not each.close_ns.size:
            continue
        close, close_ns = float(each.values[3, 0]), int(each.close_ns[0])
        exits = exit_distances(spec.exits, float(each.atr[0]))
        for side in sides:
            for level in range(1, grid.levels + 1):
                order = np.zeros(1, dtype=ORDER)
                order["symbol"], order["side"], order["kind"] = symbol, side, Kind.LIMIT
                order["price"] = close * (1 - side * level * grid.step)
                order["respawn"] = close * grid.step
                order["notional"] = share
                order["sent_ns"], order["expires_ns"] = close_ns, NEVER_NS
                for name, value in exits.items():
                    order[name] = value
                made.append(order)
    orders = np.concatenate(made)
    return orders[np.argsort(orders["sent_ns"], kind="stable")]


def year_days(start_ns: Int64s) -> int:
    """Judge by a series' bars how many days its years have: 365 where it trades at weekends, 252 where it does not.

    start_ns: (n,) int64, n >= 1. A series that is too short to hold a weekend counts as 365.
    """
    days = start_ns // NS_PER_DAY
    weekday = days % _WEEK
    if np.any((weekday == _SATURDAY) | (weekday == _SUNDAY)):
        return 365
    return 252 if int(days[-1] - days[0]) >= _WEEK else 365


# What a strategy says.


def _compiled(rules: Rules) -> Program:
    return compile_strategies(
        [
            Strategy(
                id=rules.strategy_id or 1,
                name="rules",
                display_name="rules",
                philosophy="rules",
                category="rules",
                direction="long_short",
                entry_long=rules.entry_long,
                entry_short=rules.entry_short,
                exit_long=rules.exit_long,
                exit_short=rules.exit_short,
                required_indicators=(),
            )
        ]
    )


def _signals(program: Program, columns: IndicatorColumns, checkpoint: Callable[[], None]) -> Bytes:
    """Return (n,) uint8 bits of `deciding` for every bar."""
    bits = conditions.signals(program, columns, checkpoint)
    count = columns.bars.size
    out = np.zeros(count, dtype=np.uint8)
    for row, bit in zip(program.strategy_signals[0], _BITS, strict=True):
        if row != NEVER:
            out |= np.unpackbits(bits[row].view(np.uint8), bitorder="little")[:count] * np.uint8(bit)
    return out


def _regular(program: backtest.Program, count: int) -> Bytes:
    """Return the signals of a program that needs no rules: buys at regular bars, or none."""
    out = np.zeros(count, dtype=np.uint8)
    if isinstance(program, backtest.Averaging):
        out[: program.purchases * program.every_bars : program.every_bars] = ENTER_LONG
    return out


def uses_atr(spec: BacktestSpec) -> bool:
    """Tell whether any distance or size of a specification is measured in ATR."""
    trailing, entry = spec.exits.trailing_stop, spec.entry_order
    distances = (
        spec.exits.take_profit,
        spec.exits.stop_loss,
        trailing.distance if trailing else None,
        trailing.activation if trailing else None,
        entry.offset,
        entry.limit_offset,
    )
    in_atr = any(distance is not None and distance.unit == "atr" for distance in distances)
    return in_atr or isinstance(spec.sizing, backtest.AtrRisk)


def warmup_bars(spec: BacktestSpec) -> int:
    """Say how many bars before the first the strategy, its sizing and its costs look back on."""
    needed = 0
    if isinstance(spec.program, backtest.Rules):
        program = _compiled(spec.program)
        used = max((lookback(name, bar_ns=spec.timeframe.ns) for name in program.inputs), default=0)
        needed = program.lookback + used
    if uses_atr(spec):
        needed = max(needed, lookback(ATR))
    a_day = -(-24 * NS_PER_HOUR // spec.timeframe.ns)
    return max(needed, min(a_day, 1_440), LEAST_BARS) + 1


# What is read.


def _with_warmup(store: BarStore, spec: BacktestSpec, market: Market, before: int) -> tuple[Selection, int]:
    """Select the bars of the range and, as far as they are stored, so many before; return them and where it begins."""
    start_ns, width_ns = spec.start_ns, spec.timeframe.ns
    if start_ns is None:
        return select(store, _Wanted(market.instrument, spec.timeframe, market.source, None, spec.stop_ns)), 0
    reach = before
    earliest = _first_ns(store, market)
    while True:
        # Markets that close at night have fewer bars in a time: look back further until there are enough.
        from_ns = max(start_ns - reach * width_ns, earliest) // width_ns * width_ns
        selection = select(store, _Wanted(market.instrument, spec.timeframe, market.source, from_ns, spec.stop_ns))
        first = int(np.searchsorted(selection.bars.start_ns, start_ns))
        if first >= before or from_ns <= earliest or reach > 64 * before:
            return selection, first
        reach *= 4


def _first_ns(store: BarStore, market: Market) -> TsNs:
    if isinstance(market.source, Timeframe):
        return store.timeframes(market.instrument)[market.source].first_ns
    return store.ticks.streams(market.instrument)[market.source].first_ns


def _funding(
    store: BarStore, spec: BacktestSpec, market: Market, first_ns: TsNs, last_ns: TsNs
) -> tuple[Int64s, Float64s]:
    stop_ns = last_ns + spec.timeframe.ns + 1
    if spec.funding.source == "series":
        return FundingStore(store.ticks.env).read(market.instrument, first_ns, stop_ns)
    if spec.funding.source == "none" or spec.funding.rate == 0.0:
        return np.empty(0, dtype=np.int64), np.empty(0)
    interval_ns = spec.funding.interval_hours * NS_PER_HOUR
    time_ns = np.arange(-(-first_ns // interval_ns) * interval_ns, stop_ns, interval_ns, dtype=np.int64)
    return time_ns, np.full(time_ns.size, spec.funding.rate)


def _books(store: BarStore, spec: BacktestSpec, market: Market, bars: Bars) -> Books | None:
    model = market.slippage or spec.costs.slippage
    if not isinstance(model, backtest.OrderBook) or spec.fills == "ticks":
        return None
    return read_books(store.ticks, market.instrument, bars.start_ns, model.levels)


def _ladders(series: Series) -> Ladders:
    """Return the books of the bars that are left of a series: it may have been cut."""
    if series.books is None:
        return NO_LADDERS
    ladders = series.books.ladders
    return ladders._replace(row=ladders.row[: series.bars.size])


def _holes(store: BarStore, spec: BacktestSpec, market: Market, bars: Bars) -> tuple[Hole, ...]:
    """Known holes of the source, and of the trades that fills are made against, in the range."""
    span = int(bars.start_ns[0]), int(bars.start_ns[-1]) + spec.timeframe.ns
    found: list[Hole] = []
    if isinstance(market.source, Stream):
        found += store.ticks.holes(market.instrument, market.source, *span)
    else:
        from daemon.research.holes import holes

        known = holes(store.ticks.env, market.instrument, repaired=False)
        found += [
            each.hole
            for each in known
            if each.timeframe == market.source and each.hole.start_ns < span[1] and each.hole.stop_ns > span[0]
        ]
    if spec.fills == "ticks" and isinstance(market.source, Timeframe):
        streams = store.ticks.streams(market.instrument)
        trades = next(stream for stream in TRADE_STREAMS if stream in streams)
        found += store.ticks.holes(market.instrument, trades, *span)
    return tuple(found)
