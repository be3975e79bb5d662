"""Backtests in few words: specifications, bars and feeds, run through the engine's loop and through the slow one."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from naive import simulate as naive

from daemon.core import backtest as spec_of
from daemon.core.backtest import BacktestSpec, Distance, Exits, ListedOrder, Reason, Trailing
from daemon.core.market import Instrument, Timeframe
from daemon.engine import ladders, simulate
from daemon.engine.feeds import QUOTES, TRADES
from daemon.engine.orders import Reference, Status
from daemon.engine.simulate import Outcome

WIDTH_NS = Timeframe.MIN_1.ns
FREE = spec_of.Costs(maker_rate=0.0, taker_rate=0.0, slippage=spec_of.NoSlippage())

# A specification, series, feeds.
Case = tuple[BacktestSpec, list[naive.Series], list[naive.Ticks]]


def as_bars(series):
    """Return a slow loop's series as columns."""
    values = np.array([bar[1:6] for bar in series.bars], dtype=float).reshape(-1, 5)
    known = np.array([bar[7:] for bar in series.bars], dtype=float).reshape(-1, 3)
    return simulate.Decisions(
        np.array([bar.close_ns for bar in series.bars], dtype=np.int64),
        np.ascontiguousarray(values.T),
        np.array([bar.signals for bar in series.bars], dtype=np.uint8),
        *np.ascontiguousarray(known.T),
        np.array([time_ns for time_ns, _ in series.funding], dtype=np.int64),
        np.array([rate for _, rate in series.funding], dtype=float),
        as_ladders(series.books),
    )


def as_ladders(books):
    """Return a slow loop's books as the engine has them, those that are missing as the dearest before."""
    row, edges, held, levels = [], [0], [], []
    for book in books:
        row.append(ladders.UNKNOWN if book is None else len(held) // 2)
        for side in book or ():
            mid = (book.asks[0][0] + book.bids[0][0]) / 2
            levels += [(size, abs(price / mid - 1)) for price, size in side]
            edges.append(len(levels))
            held.append(naive.one_by_one([size for _, size in side]))
    sizes, distances = np.array(levels, dtype=float).reshape(-1, 2).T
    made = (np.array(row, dtype=np.int64), np.array(edges, dtype=np.int64), np.array(held, dtype=float))
    return ladders.with_dearest(ladders.Ladders(*made, sizes.copy(), distances.copy()))


def as_feed(ticks, cuts=()):
    """Return a slow loop's feed as a stream of chunks, cut at these rows."""
    columns = (
        np.array([row[0] for row in ticks.rows], dtype=np.int64),
        np.array([row[1] for row in ticks.rows], dtype=float),
        np.array([row[2] for row in ticks.rows], dtype=float),
    )
    edges = [0, *sorted(cut for cut in cuts if cut < len(ticks.rows)), len(ticks.rows)]
    chunks = [simulate.Chunk(*(column[a:b] for column in columns)) for a, b in itertools.pairwise(edges)]
    return simulate.Feed(ticks.symbol, TRADES if ticks.kind == "trades" else QUOTES, iter(chunks))


def run(case: Case, *, optimistic: bool = False, cuts=(), chunk_rows: int = 64) -> Outcome:
    """Run a case through the engine."""
    spec, series, feeds = case
    streams = [as_feed(each, cuts) for each in feeds]
    bars = [as_bars(each) for each in series]
    return simulate.Simulation(spec, bars, streams, optimistic=optimistic, chunk_rows=chunk_rows).run()


def as_log(log):
    """Return rows of the engine's log as the slow loop has them."""
    rows = [dict(zip(log.dtype.names, row, strict=True)) for row in log.tolist()]
    return [_as_fill(row) if row["status"] == Status.FILLED else _as_ended(row) for row in rows]


def _as_fill(row: dict[str, Any]) -> naive.Fill:
    same = {name: row[name] for name in ("time_ns", "symbol", "side", "quantity", "price", "fee")}
    return naive.Fill(reason=Reason(row["reason"]), is_maker=bool(row["is_maker"]), **same)


def _as_ended(row: dict[str, Any]) -> naive.Ended:
    return naive.Ended(row["time_ns"], row["symbol"], Status(row["status"]).name.lower())


def as_samples(samples):
    """Return the engine's samples as the slow loop has them."""
    columns = (samples.time_ns.tolist(), samples.equity.tolist(), samples.cash.tolist())
    return [naive.Sample(*row) for row in zip(*columns, strict=True)]


# In few words.


def a_spec(*, symbols: int = 1, **fields: Any) -> BacktestSpec:
    """Return a specification on minutes that trades rules without costs, but for these fields (of its markets too)."""
    own = {name: fields.pop(name) for name in ("tick_size", "lot_size", "min_notional") if name in fields}
    market = spec_of.Market(instrument=Instrument("test", "A"), source=Timeframe.MIN_1, **own)
    defaults = {"program": spec_of.Rules(), "costs": FREE}
    return BacktestSpec(name="made up", markets=(market,) * symbols, timeframe=Timeframe.MIN_1, **(defaults | fields))


def costs(*, maker: float = 0.0, taker: float = 0.0, slippage: Any = None, **fields: Any) -> spec_of.Costs:
    return spec_of.Costs(maker_rate=maker, taker_rate=taker, slippage=slippage or spec_of.NoSlippage(), **fields)


def away(value: float, unit: str = "price") -> Distance:
    return Distance(unit=unit, value=value)


def exits(*, target=None, loss=None, trail=None, activation=None, unit: str = "price", timeout=None) -> Exits:
    """Return exits at distances of one unit."""

    def distance(value):
        return None if value is None else away(value, unit)

    trailing = None if trail is None else Trailing(distance=away(trail, unit), activation=distance(activation))
    return Exits(distance(target), distance(loss), trailing, timeout)


def listed(side: str, quantity: float | None, *, at: float = 0, symbol: int = 0, **fields: Any) -> ListedOrder:
    """Return a listed order. at: bars since the first one's start; until: the same of its expiry; trail: a price."""
    until = fields.pop("until", None)
    if (trail := fields.pop("trail", None)) is not None:
        activation = fields.pop("activation", None)
        fields["trail"] = Trailing(distance=away(trail), activation=activation and away(activation))
    if until is not None:
        fields["expires_ns"] = int(until * WIDTH_NS)
    return ListedOrder(time_ns=int(at * WIDTH_NS), symbol=symbol, side=side, quantity=quantity, **fields)


def buy(quantity: float | None = None, **fields: Any) -> ListedOrder:
    return listed("buy", quantity, **fields)


def sell(quantity: float | None = None, **fields: Any) -> ListedOrder:
    return listed("sell", quantity, **fields)


def bars(*rows, signals=None, funding=(), starts=None, **known) -> naive.Series:
    """Return bars of (open, high, low, close) or (..., volume), 1,000 without one.

    signals: by row. funding: (bars since the first one's start, rate). starts: of each row in bars, 0, 1, 2 … if None.
    """
    made = []
    for index, (start, row) in enumerate(zip(starts or range(len(rows)), rows, strict=True)):
        volume = row[4] if len(row) > 4 else 1_000.0
        signal = (signals or {}).get(index, naive.Signal(0))
        made.append(naive.Bar((start + 1) * WIDTH_NS, *map(float, row[:4]), volume, signal, **known))
    return naive.Series(made, [(int(at * WIDTH_NS), rate) for at, rate in funding])


def flat(count: int, price: float = 100.0, **fields: Any) -> naive.Series:
    """Return bars in which nothing moves."""
    return bars(*[(price,) * 4] * count, **fields)


def steps(*prices: float, **fields: Any) -> naive.Series:
    """Return bars that stand still at these prices."""
    return bars(*[(price,) * 4 for price in prices], **fields)


def trades(*rows, symbol: int = 0) -> naive.Ticks:
    """Return trades of (bars since the first one's start, price, size)."""
    return naive.Ticks(symbol, "trades", [(int(at * WIDTH_NS), float(price), float(size)) for at, price, size in rows])


def quotes(*rows, symbol: int = 0) -> naive.Ticks:
    """Return quotes of (bars since the first one's start, bid, ask)."""
    return naive.Ticks(symbol, "quotes", [(int(at * WIDTH_NS), float(bid), float(ask)) for at, bid, ask in rows])


class Traded(NamedTuple):
    """What came of it. fills: (bar, reason, signed quantity, price), but for closings at the end; ends: (bar, word)."""

    fills: list[tuple[float, str, float, float]]
    ends: list[tuple[float, str]]
    outcome: Outcome

    @property
    def equity(self) -> list[float]:
        return self.outcome.samples.equity.tolist()

    @property
    def cash(self) -> list[float]:
        return self.outcome.samples.cash.tolist()


def trade(series, *orders: ListedOrder, feeds=(), optimistic: bool = False, **fields: Any) -> Traded:
    """Run orders, or rules where there are none, over series (one, or a list) through both loops, which must agree."""
    series = [series] if isinstance(series, naive.Series) else series
    if orders:
        fields["program"] = spec_of.OrderList(orders)
    if feeds:
        fields["fills"] = "ticks"
    case = (a_spec(symbols=len(series), **fields), series, list(feeds))
    outcome = run(case, optimistic=optimistic)
    slow = naive.Simulation(*case, optimistic=optimistic).run()
    assert as_log(outcome.log) == slow.log
    assert as_samples(outcome.samples) == slow.samples
    is_fill = outcome.log["status"] == Status.FILLED
    shown = outcome.log[is_fill & (outcome.log["reference_kind"] != Reference.CLOSE)]
    fills = [
        (
            float(row["time_ns"]) / WIDTH_NS,
            Reason(row["reason"]).name.lower(),
            round(float(row["side"] * row["quantity"]), 9),
            round(float(row["price"]), 9),
        )
        for row in shown
    ]
    ends = [(float(row["time_ns"]) / WIDTH_NS, Status(row["status"]).name.lower()) for row in outcome.log[~is_fill]]
    return Traded(fills, ends, outcome)
