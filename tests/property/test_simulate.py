"""The backtest's loop against the slow one, and what holds of any run."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import simulate as naive

from daemon.core import backtest as spec_of
from daemon.core.backtest import Distance, Exits, Reason, Trailing
from daemon.core.market import Instrument, Timeframe
from daemon.engine import simulate
from daemon.engine.loop import QUOTES, TRADES
from daemon.engine.orders import Status

WIDTH_NS = Timeframe.MIN_1.ns
BUYS_AND_SELLS = ("buy", "sell")


# Both ways to run a case: a specification, series, feeds.


def as_bars(series):
    """Return a naive series as columns."""
    values = np.array([bar[1:6] for bar in series.bars], dtype=float)
    known = np.array([bar[7:] for bar in series.bars], dtype=float)
    return simulate.SymbolBars(
        np.array([bar.close_ns for bar in series.bars], dtype=np.int64),
        np.ascontiguousarray(values.T),
        np.array([bar.signals for bar in series.bars], dtype=np.uint8),
        *np.ascontiguousarray(known.T),
        np.array([time_ns for time_ns, _ in series.funding], dtype=np.int64),
        np.array([rate for _, rate in series.funding], dtype=float),
    )


def as_feed(ticks, cuts):
    """Return a naive feed as a stream of chunks, cut at these rows."""
    columns = (
        np.array([row[0] for row in ticks.rows], dtype=np.int64),
        np.array([row[1] for row in ticks.rows], dtype=float),
        np.array([row[2] for row in ticks.rows], dtype=float),
    )
    edges = [0, *sorted(cuts), len(ticks.rows)]
    chunks = [simulate.Chunk(*(column[a:b] for column in columns)) for a, b in zip(edges, edges[1:], strict=False)]
    return simulate.Feed(ticks.symbol, TRADES if ticks.kind == "trades" else QUOTES, iter(chunks))


def run(case, *, optimistic=False, cuts=(), chunk_rows=64):
    spec, series, feeds = case
    streams = [as_feed(each, [cut for cut in cuts if cut < len(each.rows)]) for each in feeds]
    bars = [as_bars(each) for each in series]
    return simulate.Simulation(spec, bars, streams, optimistic=optimistic, chunk_rows=chunk_rows).run()


def as_log(log):
    """Return rows of the log as the slow loop has them."""
    rows = [dict(zip(log.dtype.names, row, strict=True)) for row in log.tolist()]
    return [
        naive.Fill(
            row["time_ns"],
            row["symbol"],
            row["side"],
            Reason(row["reason"]),
            row["quantity"],
            row["price"],
            row["fee"],
            bool(row["is_maker"]),
        )
        if row["status"] == Status.FILLED
        else naive.Ended(row["time_ns"], row["symbol"], Status(row["status"]).name.lower())
        for row in rows
    ]


def as_samples(samples):
    columns = (samples.time_ns.tolist(), samples.equity.tolist(), samples.cash.tolist())
    return [naive.Sample(*row) for row in zip(*columns, strict=True)]


def assert_agrees(case):
    # The impact of almgren_2005 takes powers that the slow loop takes by `**`: the last bit is free there.
    exact = not isinstance(case[0].costs.slippage, spec_of.Almgren2005)
    for optimistic in (False, True):
        outcome = run(case, optimistic=optimistic)
        wanted = naive.Simulation(*case, optimistic=optimistic).run()
        if exact:
            assert as_log(outcome.log) == wanted.log
            assert as_samples(outcome.samples) == wanted.samples
        else:
            assert as_log(outcome.log) == [near(row) for row in wanted.log]
            assert as_samples(outcome.samples) == [near(row) for row in wanted.samples]


def near(row):
    return type(row)(*(pytest.approx(each, rel=1e-11) if isinstance(each, float) else each for each in row))


# Markets at random.


def prices_of(rng, size, tick):
    """Walk on a grid of coarse ticks: levels are touched to the bit, some bars open away from the last close."""
    close = np.maximum(100.0 + np.cumsum(rng.integers(-4, 5, size)) * tick, 10 * tick)
    opened = np.concatenate([[100.0], close[:-1]])
    opened = np.maximum(opened + (rng.random(size) < 0.3) * rng.integers(-6, 7, size) * tick, 10 * tick)
    high = np.maximum(opened, close) + rng.integers(0, 4, size) * tick
    low = np.minimum(opened, close) - rng.integers(0, 4, size) * tick
    return opened, high, low, close


def holed(rng, values, hole=math.nan):
    return np.where(rng.random(values.size) < 0.1, hole, values)


def make_series(rng, size, *, tick=0.5, is_signalled=True, has_funding=True):
    close_ns = np.cumsum(np.where(rng.random(size) < 0.1, rng.integers(2, 5, size), 1)) * WIDTH_NS
    signals = np.zeros(size, dtype=int)
    for bit, share in ((1, 0.2), (2, 0.15), (4, 0.1), (8, 0.1)):
        signals |= (rng.random(size) < share * is_signalled) * bit
    columns = (
        close_ns,
        *prices_of(rng, size, tick),
        holed(rng, rng.integers(1, 400, size) * 1.0, 0.0),
        signals,
        holed(rng, rng.integers(1, 6, size) * 0.5),
        holed(rng, rng.random(size) * 0.05),
        holed(rng, rng.random(size) * 50_000),
    )
    bars = [naive.Bar(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    bars = [bar._replace(signals=naive.Signal(bar.signals)) for bar in bars]
    every = int(rng.integers(1, 12)) * WIDTH_NS // 2
    due = range(every, int(close_ns[-1]) + WIDTH_NS, every) if has_funding else ()
    return naive.Series(bars, [(time_ns, int(rng.integers(-5, 6)) * 1e-4) for time_ns in due])


def make_feeds(rng, series, symbol, *, tick=0.5, has_quotes=True):
    """Trades, and quotes around them, of the bars' time; many share a moment, with each other and with bars' ends."""
    size = 6 * len(series.bars)
    stop = series.bars[-1].close_ns // (WIDTH_NS // 4) + 2
    times = np.sort(rng.integers(0, stop, size)) * (WIDTH_NS // 4)
    price = np.maximum(100.0 + np.cumsum(rng.integers(-2, 3, size)) * tick, 10 * tick)
    trades = list(zip(times.tolist(), price.tolist(), (rng.integers(1, 40, size) * 0.5).tolist(), strict=True))
    feeds = [naive.Ticks(symbol, "trades", trades)]
    if has_quotes:
        quoted = rng.random(size) < 0.4
        bid, ask = price[quoted] - tick, price[quoted] + rng.integers(0, 2, quoted.sum()) * tick
        quotes = list(zip(times[quoted].tolist(), bid.tolist(), ask.tolist(), strict=True))
        feeds.append(naive.Ticks(symbol, "quotes", quotes))
    return feeds


# Specifications at random.

FRACTIONS = st.sampled_from([0.001, 0.005, 0.01, 0.02, 0.05, 1.5])
PRICES = st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0])
FIXED_DISTANCES = st.one_of(
    st.builds(Distance, unit=st.just("fraction"), value=FRACTIONS),
    st.builds(Distance, unit=st.just("price"), value=PRICES),
)
DISTANCES = FIXED_DISTANCES | st.builds(Distance, unit=st.just("atr"), value=st.sampled_from([0.5, 1.0, 2.0]))


def exits_of(distances):
    return st.builds(
        Exits,
        take_profit=st.none() | distances,
        stop_loss=st.none() | distances,
        trailing_stop=st.none() | st.builds(Trailing, distance=distances, activation=st.none() | distances),
    )


FORCES = st.sampled_from(["GTC", "GTC", "GTC", "GTD", "IOC", "FOK"])
ENTRY_ORDERS = st.builds(
    spec_of.EntryOrder,
    type=st.sampled_from(["market", "market", "limit", "stop", "stop_limit"]),
    offset=st.none() | DISTANCES,
    limit_offset=st.none() | DISTANCES,
    time_in_force=FORCES,
    good_for_bars=st.none() | st.integers(1, 4),
    post_only=st.booleans(),
)
SIZINGS = st.one_of(
    st.builds(spec_of.Fixed, quantity=st.sampled_from([1.0, 7.3, 300.0])),
    st.builds(spec_of.Fixed, notional=st.sampled_from([40.0, 1_000.0, 50_000.0])),
    st.builds(spec_of.FixedFractional, fraction=st.sampled_from([0.1, 1.0, 3.0])),
    st.builds(spec_of.Kelly, least_trades=st.integers(1, 3), start=st.sampled_from([0.1, 1.0])),
    st.builds(spec_of.VolatilityTarget, target=st.sampled_from([0.1, 0.5]), cap=st.sampled_from([0.5, 2.0])),
    st.builds(spec_of.AtrRisk, risk=st.sampled_from([0.01, 0.1])),
)
SLIPPAGES = st.one_of(
    st.just(spec_of.NoSlippage()),
    st.builds(spec_of.FixedBps, bps=st.sampled_from([0.0, 5.0, 80.0])),
    st.builds(spec_of.VolumeWeighted, impact=st.sampled_from([0.1, 5.0]), participation_cap=st.sampled_from([0.025, 1])),
    st.builds(spec_of.SquareRoot, participation_cap=st.sampled_from([0.1, 0.5])),
    st.builds(spec_of.Almgren2005, execution_days=st.none() | st.just(0.5)),
)
COSTS = st.builds(
    spec_of.Costs,
    maker_rate=st.sampled_from([0.0, 0.0005]),
    taker_rate=st.sampled_from([0.0, 0.001]),
    fixed_fee=st.sampled_from([0.0, 0.0, 1.0]),
    slippage=SLIPPAGES,
    scale=st.sampled_from([1.0, 1.0, 0.0, 2.5]),
)
ACCOUNTS = st.builds(
    spec_of.Account,
    leverage=st.sampled_from([1.0, 1.0, 3.0, 50.0]),
    max_positions=st.none() | st.just(1),
    max_position_notional=st.none() | st.just(2_000.0),
)
LATENCIES = st.builds(
    spec_of.Latency,
    feed_ns=st.sampled_from([0, 0, WIDTH_NS // 4]),
    order_ns=st.sampled_from([0, 0, WIDTH_NS // 2, 2 * WIDTH_NS]),
)


@st.composite
def listed_orders(draw, symbols, bars):
    kind = draw(st.sampled_from(["market", "limit", "stop", "stop_limit", "trailing_stop", "take_profit"]))
    size = draw(st.sampled_from(["quantity", "quantity", "notional", "closes"]))
    level = st.integers(180, 220).map(lambda steps: steps / 2 + 0.25 * (steps % 3 == 0))
    values = {"quantity": draw(st.sampled_from([0.05, 1.0, 7.3, 300.0]))} if size == "quantity" else {}
    if size == "notional":
        values["notional"] = draw(st.sampled_from([40.0, 3_000.0, 30_000.0]))
    if kind in {"limit", "stop_limit", "take_profit"}:
        values["price"] = draw(level)
    if kind in {"stop", "stop_limit"}:
        values["stop_price"] = draw(level)
    if kind == "trailing_stop":
        activation = st.none() | st.builds(Distance, unit=st.just("price"), value=level)
        values["trail"] = draw(st.builds(Trailing, distance=FIXED_DISTANCES, activation=activation))
    quarter_ns = WIDTH_NS // 4
    time_ns = draw(st.integers(0, 4 * bars + 4)) * quarter_ns
    return spec_of.ListedOrder(
        time_ns=time_ns,
        symbol=draw(st.integers(0, symbols - 1)),
        side=draw(st.sampled_from(BUYS_AND_SELLS)),
        type=kind,
        time_in_force=draw(FORCES),
        expires_ns=draw(st.none() | st.integers(0, 40).map(lambda steps: time_ns + steps * quarter_ns)),
        post_only=draw(st.booleans()) and draw(st.booleans()),
        reduce_only=size == "closes" or (draw(st.booleans()) and draw(st.booleans())),
        oco=draw(st.sampled_from([0, 0, 0, 1, 2])),
        exits=draw(exits_of(FIXED_DISTANCES)),
        **values,
    )


@st.composite
def cases(draw, fills="bars", program=None, least=1, most=40):
    """Draw a specification of any program that fits series (and feeds) of any make."""
    symbols = draw(st.integers(1, 2 if fills == "ticks" else 3))
    size = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    program = program or draw(st.sampled_from(["rules", "orders"]))
    listed = st.lists(listed_orders(symbols, size), min_size=1, max_size=12)
    markets = st.builds(
        spec_of.Market,
        instrument=st.just(Instrument("test", "A")),
        source=st.just(Timeframe.MIN_1),
        tick_size=st.sampled_from([0.0, 0.5, 0.01]),
        lot_size=st.sampled_from([0.0, 0.1, 5.0]),
        min_notional=st.sampled_from([0.0, 50.0]),
    )
    spec = spec_of.BacktestSpec(
        name="made up",
        markets=tuple(draw(markets) for _ in range(symbols)),
        timeframe=Timeframe.MIN_1,
        program=spec_of.OrderList(tuple(draw(listed))) if program == "orders" else spec_of.Rules(),
        exits=_with_timeout(draw(exits_of(DISTANCES)), draw(st.none() | st.integers(1, 6))),
        entry_order=draw(ENTRY_ORDERS),
        sizing=draw(SIZINGS),
        costs=draw(COSTS),
        account=draw(ACCOUNTS),
        latency=draw(LATENCIES),
        fills=fills,
        limit_fills=draw(st.sampled_from(["touch", "through"])),
    )
    made = {"is_signalled": program == "rules", "has_funding": draw(st.booleans())}
    series = [make_series(rng, size, **made) for _ in range(symbols)]
    has_quotes = draw(st.booleans())
    feeds = [
        feed
        for symbol, each in enumerate(series)
        if fills == "ticks"
        for feed in make_feeds(rng, each, symbol, has_quotes=has_quotes)
    ]
    return spec, series, feeds


def _with_timeout(exits, bars):
    return Exits(exits.take_profit, exits.stop_loss, exits.trailing_stop, bars)


# Fill for fill.


@given(cases(program="rules"))
@settings(max_examples=150, deadline=None)
def test_rules_on_bars_trade_as_the_slow_loop_does(case):
    assert_agrees(case)


@given(cases(program="orders", most=30))
@settings(max_examples=150, deadline=None)
def test_listed_orders_on_bars_fill_as_in_the_slow_loop(case):
    assert_agrees(case)


@given(cases(fills="ticks", most=15))
@settings(max_examples=120, deadline=None)
def test_fills_on_ticks_are_those_of_the_slow_loop(case):
    assert_agrees(case)
