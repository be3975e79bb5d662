"""The backtest's loop against the slow one, and what holds of any run."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import simulate as naive
from simulated import WIDTH_NS, as_log, as_samples, run

from daemon.core import backtest as spec_of
from daemon.core.backtest import Distance, Exits, Trailing, slippages_of
from daemon.core.market import Instrument, Timeframe
from daemon.engine import simulate
from daemon.engine.orders import Kind, Reference, Status

BUYS_AND_SELLS = ("buy", "sell")


def assert_agrees(case):
    # Powers and hyperbolic sines, which the slow loop takes by `**` and `sinh`, and books, which it walks by prices:
    # there the last bits are free.
    free = spec_of.Almgren2005 | spec_of.AlmgrenChriss | spec_of.OrderBook
    exact = not any(isinstance(each, free) for each in slippages_of(case[0]))
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


def make_books(rng, size):
    """Books of a few coarse levels around any mid, often missing, some of them thin."""
    return [make_book(rng) if rng.random() < 0.6 else None for _ in range(size)]


def make_book(rng):
    mid = 50.0 + rng.integers(0, 100)
    asks, bids = (np.cumsum(rng.integers(1, 40, rng.integers(1, 6))) * 0.01 for _ in range(2))
    sizes = [(rng.integers(1, 60, each.size) * rng.choice([0.05, 1.0, 20.0])).tolist() for each in (asks, bids)]
    sides = zip([(mid + asks).tolist(), (mid - bids).tolist()], sizes, strict=True)
    return naive.Book(*(list(zip(prices, held, strict=True)) for prices, held in sides))


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
    st.builds(
        spec_of.VolumeWeighted, impact=st.sampled_from([0.1, 5.0]), participation_cap=st.sampled_from([0.025, 1])
    ),
    st.builds(spec_of.SquareRoot, participation_cap=st.sampled_from([0.1, 0.5])),
    st.builds(spec_of.Almgren2005, execution_days=st.none() | st.just(0.5)),
    st.builds(
        spec_of.AlmgrenChriss,
        gamma=st.none() | st.just(0.5),
        eta=st.none() | st.just(0.2),
        slices=st.sampled_from([1, 5, 30]),
        execution_days=st.none() | st.sampled_from([0.5, 3.0]),
        risk_aversion=st.sampled_from([0.0, 250.0]),
        participation_cap=st.sampled_from([0.1, 1]),
    ),
    st.builds(spec_of.Kyle, y=st.sampled_from([1.0, 30.0]), participation_cap=st.sampled_from([0.1, 1])),
)
BOOKS = st.just(spec_of.OrderBook())
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
def cases(draw, fills="bars", program=None, least=1, most=40, symbols=None, slippages=SLIPPAGES):
    """Draw a specification of any program that fits series (and feeds) of any make."""
    symbols = symbols or draw(st.integers(1, 2 if fills == "ticks" else 3))
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
        slippage=st.none() | st.none() | slippages,
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
    series = [
        each._replace(books=make_books(rng, size)) if isinstance(model, spec_of.OrderBook) else each
        for each, model in zip(series, slippages_of(spec), strict=True)
    ]
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
@settings(max_examples=120, deadline=None)
def test_rules_on_bars_trade_as_the_slow_loop_does(case):
    assert_agrees(case)


@given(cases(program="orders", most=30))
@settings(max_examples=120, deadline=None)
def test_listed_orders_on_bars_fill_as_in_the_slow_loop(case):
    assert_agrees(case)


@given(cases(symbols=2, slippages=BOOKS))
@settings(max_examples=60, deadline=None)
def test_orders_that_walk_the_books_of_bars_pay_what_the_slow_loop_pays(case):
    spec, series, feeds = case
    # One symbol at the least by the book; what the other pays is drawn.
    first = msgspec.structs.replace(spec.markets[0], slippage=spec_of.OrderBook())
    books = series[0].books or make_books(np.random.default_rng(len(series[0].bars)), len(series[0].bars))
    spec = msgspec.structs.replace(spec, markets=(first, spec.markets[1]))
    assert_agrees((spec, [series[0]._replace(books=books), series[1]], feeds))


@given(cases(fills="ticks", most=15))
@settings(max_examples=100, deadline=None)
def test_fills_on_ticks_are_those_of_the_slow_loop(case):
    assert_agrees(case)


# What holds of any run.

EITHER = st.one_of(cases(), cases(fills="ticks", most=15))
SWITCH = st.booleans()


def fills_of(outcome):
    return outcome.log[outcome.log["status"] == Status.FILLED]


@given(EITHER, SWITCH)
@settings(max_examples=60, deadline=None)
def test_cash_is_what_was_there_less_what_was_bought_and_paid_plus_funding(case, optimistic):
    outcome = run(case, optimistic=optimistic)
    rows = fills_of(outcome)
    last_of_symbol = [rows[rows["symbol"] == symbol][-1:] for symbol in range(len(case[1]))]
    expected = (
        case[0].account.initial_capital
        - (rows["side"] * rows["quantity"] * rows["price"]).sum()
        - rows["fee"].sum()
        + sum(each["funding"].sum() for each in last_of_symbol)
    )
    scale = np.abs(rows["quantity"] * rows["price"]).sum() + case[0].account.initial_capital
    assert outcome.samples.cash[-1] == pytest.approx(expected, abs=1e-12 * scale)
    assert outcome.samples.equity[-1] == outcome.samples.cash[-1]


@given(cases(), SWITCH)
@settings(max_examples=60, deadline=None)
def test_equity_is_cash_and_positions_at_the_last_closes(case, optimistic):
    outcome = run(case, optimistic=optimistic)
    rows = fills_of(outcome)
    for time_ns, equity, cash in as_samples(outcome.samples)[:-1]:
        worth = 0.0
        for symbol, series in enumerate(case[1]):
            # What fills inside of a bar carries its start: all of it came before its close, but for the closing.
            is_seen = rows["time_ns"] + (rows["reference_kind"] != Reference.CLOSE) <= time_ns
            so_far = rows[(rows["symbol"] == symbol) & is_seen]
            marks = [bar.close for bar in series.bars if bar.close_ns <= time_ns]
            if so_far.size and marks:
                worth += so_far["position_quantity"][-1] * marks[-1]
        assert equity == pytest.approx(cash + worth, rel=1e-12)


@given(EITHER, SWITCH)
@settings(max_examples=60, deadline=None)
def test_nothing_fills_before_it_was_sent_nor_before_what_was_filled_earlier(case, optimistic):
    log = run(case, optimistic=optimistic).log
    assert (log["time_ns"] >= log["sent_ns"]).all()
    for symbol in range(len(case[1])):
        assert (np.diff(log["time_ns"][log["symbol"] == symbol]) >= 0).all()


@given(cases(symbols=1), SWITCH)
@settings(max_examples=60, deadline=None)
def test_a_position_grows_no_further_than_margin_and_its_limit_allow(case, optimistic):
    account = case[0].account
    for row in fills_of(run(case, optimistic=optimistic)):
        held = row["position_quantity"]
        if held * row["side"] > 0:
            worth = abs(held) * row["reference"]
            equity = row["cash"] + held * row["reference"]
            assert worth / account.leverage <= equity + 1e-9 * worth
            assert worth <= (account.max_position_notional or math.inf) * (1 + 1e-9)


@given(cases(), SWITCH)
@settings(max_examples=60, deadline=None)
def test_references_lie_within_their_bars_but_for_resting_limits_that_the_open_passed(case, optimistic):
    starts = [{bar.close_ns - WIDTH_NS: bar for bar in series.bars} for series in case[1]]
    for row in fills_of(run(case, optimistic=optimistic)):
        if row["reference_kind"] == Reference.CLOSE:
            continue
        bar, reference = starts[row["symbol"]][row["time_ns"]], row["reference"]
        passed = row["is_maker"] and (reference - bar.open) * row["side"] >= 0
        assert bar.low <= reference <= bar.high or passed
        # To the tick against the order, but for the rounding of a level that should lie on one.
        assert (row["price"] - reference) * row["side"] >= -1e-9 * reference or row["kind"] == Kind.LIMIT


@given(cases(fills="ticks", most=15), st.lists(st.integers(0, 90), max_size=8), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_neither_chunks_nor_pauses_change_anything(case, cuts, pace):
    whole = run(case, chunk_rows=1_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "_EVENTS_A_STEP", pace)
        patch.setattr(simulate, "_LOG_ROWS", pace)
        patch.setattr(simulate, "_SAMPLES", pace)
        paused = run(case, cuts=cuts, chunk_rows=1)
    assert paused.log.tobytes() == whole.log.tobytes()
    assert [column.tolist() for column in paused.samples] == [column.tolist() for column in whole.samples]
    assert (paused.events, paused.tries) == (whole.events, whole.tries)


@given(EITHER, SWITCH, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_what_comes_later_changes_nothing_of_what_was_before(case, optimistic, bars):
    spec, series, feeds = case
    until_ns = series[0].bars[0].close_ns + bars * WIDTH_NS
    begun = [
        naive.Series(
            [bar for bar in each.bars if bar.close_ns <= until_ns],
            [due for due in each.funding if due[0] <= until_ns],
        )
        for each in series
    ]
    seen = [each._replace(rows=[row for row in each.rows if row[0] <= until_ns]) for each in feeds]
    # A symbol is closed where its data end: until the first of them nothing of that is to be seen.
    ends_ns = min(each.bars[-1].close_ns if each.bars else 0 for each in begun)
    part, whole = (run(each, optimistic=optimistic).log for each in ((spec, begun, seen), case))
    assert part[part["time_ns"] < ends_ns].tobytes() == whole[whole["time_ns"] < ends_ns].tobytes()


@given(cases(program="rules", symbols=1, least=3, most=3), exits_of(FIXED_DISTANCES))
@settings(max_examples=100, deadline=None)
def test_one_bar_with_exits_leaves_the_optimist_no_less(case, exits):
    spec, (series,), _ = case
    first, *others = series.bars
    entry = first._replace(signals=naive.Signal.ENTER_LONG)
    bars = [entry, *(bar._replace(signals=naive.Signal(0)) for bar in others)]
    spec = msgspec.structs.replace(spec, exits=exits, latency=spec_of.Latency())
    worse, better = (
        run((spec, [series._replace(bars=bars)], []), optimistic=optimistic).samples.equity[1]
        for optimistic in (False, True)
    )
    assert worse <= better
