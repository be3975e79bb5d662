"""Own strategies in the loop: compiled or as Python the same, and what they may not do."""

# ruff: noqa: ARG002 - handlers get what they get

import traceback

import numpy as np
import pytest
from simulated import FREE, WIDTH_NS, a_spec, as_bars, bars, flat

from daemon.core.backtest import Own
from daemon.core.execution import Latency
from daemon.engine import context as context_of
from daemon.engine.context import BUY, FOK, SELL, Column, Context, Fill, Parameter, Strategy, Trade
from daemon.engine.feeds import TRADES
from daemon.engine.orders import Status
from daemon.engine.own import NAMES, Handler, OwnStrategy, compile_strategy
from daemon.engine.simulate import Chunk, Feed, OwnRun, Simulation


def own(made, *, every_ms: float = 0.0):
    """Return a class as it would have been read from a file."""
    members = vars(made)
    kinds = (Parameter, Column)
    state = {
        name: value
        for name, value in members.items()
        if not name.startswith("_") and not callable(value) and not isinstance(value, kinds) and name != "every_ms"
    }
    return OwnStrategy(
        made,
        made.__name__,
        __file__,
        f"test-{made.__qualname__}",
        {name: value for name, value in members.items() if isinstance(value, Parameter)},
        {name: value.name for name, value in members.items() if isinstance(value, Column)},
        state,
        frozenset(kind for kind in Handler if NAMES[kind] in members),
        int(every_ms * 1e6),
    )


def simulation(made, series, trades=(), *, columns=None, every_ms=0.0, parameters=None, **fields):
    """Return a run of an own strategy over a symbol's bars, and its trades."""
    spec = a_spec(program=Own("own", "digest"), costs=FREE, fills="ticks" if len(trades) else "bars", **fields)
    run = OwnRun(own(made, every_ms=every_ms), parameters or {}, [columns if columns is not None else np.empty((0, 0))])
    feeds = [Feed(0, TRADES, iter([Chunk(*trades)]))] if len(trades) else []
    return Simulation(spec, [as_bars(series)], feeds, own=run)


def fills_of(outcome):
    return outcome.log[outcome.log["status"] == 0]


def walk(count: int, seed: int = 3):
    """Return trades of a walk, ten in a bar."""
    rng = np.random.default_rng(seed)
    price = np.round(100 + np.cumsum(rng.normal(0, 0.2, count)), 1)
    return np.arange(count) * (WIDTH_NS // 10), price, rng.integers(1, 9, count) / 10.0


class Reverting(Strategy):
    """Buys what fell, sells what rose, with a limit order, and keeps the orders' count small."""

    band = Parameter(0.3, low=0.1, high=2.0, step=0.1)
    mean: float = 100.0
    order: int = 0
    seen = np.zeros(4)
    bought: float = 0.0

    def on_trade(self, context: Context, trade: Trade) -> None:
        if abs(self.bought - context.position()) > 1e-9:
            raise AssertionError("a strategy hears of each of its fills, before anything else")
        self.mean += 0.05 * (trade.price - self.mean)
        self.seen[int(trade.size * 10) % 4] += trade.size
        if context.remaining(self.order) > 0.0:
            if abs(trade.price - self.mean) < self.band / 2:
                context.cancel(self.order)
            else:
                context.replace(self.order, 1.0, self.level(trade.price))
            return
        if abs(trade.price - self.mean) > self.band:
            side = SELL if trade.price > self.mean else BUY
            self.order = context.submit(side, 1.0, self.level(trade.price))

    def on_fill(self, context: Context, fill: Fill) -> None:
        self.bought += fill.side * fill.quantity

    def on_timer(self, context: Context) -> None:
        if abs(context.position()) > 3.0:
            context.submit(SELL if context.position() > 0.0 else BUY, abs(context.position()), reduce_only=True)

    def level(self, price: float) -> float:
        return price - 0.1 if price < self.mean else price + 0.1


class RevertingAsPython(Reverting):
    """The same, with something in each handler that no compiler takes."""

    band = Parameter(0.3, low=0.1, high=2.0, step=0.1)
    mean: float = 100.0
    order: int = 0
    seen = np.zeros(4)
    bought: float = 0.0

    def on_trade(self, context: Context, trade: Trade) -> None:
        {}.get(object())
        super().on_trade(context, trade)

    def on_fill(self, context: Context, fill: Fill) -> None:
        {}.get(object())
        super().on_fill(context, fill)

    def on_timer(self, context: Context) -> None:
        {}.get(object())
        super().on_timer(context)


def test_compiled_and_as_python_a_strategy_trades_alike():
    trades = walk(600)
    logs = []
    for made in (Reverting, RevertingAsPython):
        run = simulation(made, flat(60), trades, every_ms=90_000.0, latency=Latency(feed_ns=5, order_ns=WIDTH_NS // 7))
        outcome = run.run()
        assert bool(run.compiled.handlers) == (made is Reverting)
        assert [each.handler for each in run.compiled.uncompiled] == (
            [] if made is Reverting else [Handler.TRADE, Handler.FILL, Handler.TIMER]
        )
        logs.append(outcome.log)
    assert fills_of(outcome).size > 20
    assert logs[0].tobytes() == logs[1].tobytes()


def test_why_a_handler_runs_as_python_is_told_with_its_line():
    (first, *_) = compile_strategy(own(RevertingAsPython)).uncompiled
    assert "test_own.py" in first.why
    assert len(first.why) < 400


def test_a_parameter_of_the_run_goes_before_its_default():
    class Asking(Strategy):
        size = Parameter(1.0, low=0.0, high=9.0, step=1.0)

        def on_bar(self, context, bar):
            if context.position() == 0.0:
                context.submit(BUY, self.size)

    outcome = simulation(Asking, flat(4), parameters={"size": 3.0}).run()
    assert fills_of(outcome)["quantity"].tolist()[0] == 3.0


def test_columns_are_as_of_the_last_close():
    class Following(Strategy):
        own_close = Column("close")

        def on_bar(self, context, bar):
            now, before = context.value(self.own_close), context.value(self.own_close, 1)
            if now != bar.close or context.close() != bar.close:
                raise AssertionError("the last close is this bar's")
            if context.bar_count() == 1 and not np.isnan(before):
                raise AssertionError("there is no bar before the first")
            if now > before:
                context.submit(BUY, 1.0)

    series = bars((1, 1, 1, 1), (2, 2, 2, 2), (2, 2, 2, 2), (1, 1, 1, 1))
    outcome = simulation(Following, series, columns=np.array([[1.0, 2.0, 2.0, 1.0]])).run()
    entries = fills_of(outcome)[:-1]
    assert entries["time_ns"].tolist() == [2 * WIDTH_NS]


def test_who_looks_ahead_is_stopped_at_his_own_line():
    class Ahead(Strategy):
        def on_bar(self, context, bar):
            if context.close(-1) > bar.close:
                context.submit(BUY, 1.0)

    run = simulation(Ahead, flat(4))
    assert run.compiled.handlers == {Handler.BAR}
    with pytest.raises(ValueError, match="cannot look ahead") as caught:
        run.run()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(each.name == "on_bar" and "context.close(-1)" in (each.line or "") for each in frames)


@pytest.mark.parametrize(
    ("side", "quantity", "price"),
    [(BUY, float("nan"), 0.0), (BUY, 1.0, float("nan")), (BUY, -1.0, 0.0), (SELL, 0.0, 1.0), (2, 1.0, 0.0),
     (BUY, 1.0, -5.0), (BUY, float("inf"), 0.0)],
)  # fmt: skip
def test_an_order_that_no_venue_takes_is_refused_and_the_run_goes_on(side, quantity, price):
    class Wrong(Strategy):
        side = Parameter(1.0, low=-2.0, high=2.0, step=1.0)
        quantity = Parameter(1.0, low=-9.0, high=9.0, step=1.0)
        price = Parameter(1.0, low=-9.0, high=9.0, step=1.0)

        def on_bar(self, context, bar):
            context.submit(int(self.side), self.quantity, self.price)

    outcome = simulation(Wrong, flat(5), parameters={"side": side, "quantity": quantity, "price": price}).run()
    assert outcome.log["status"].tolist() == [Status.INVALID] * 4


def test_cancels_and_replacements_of_unknown_orders_are_counted():
    class Cancelling(Strategy):
        def on_bar(self, context, bar):
            context.cancel(77)
            context.replace(78, 1.0, 5.0)

    outcome = simulation(Cancelling, flat(6)).run()
    assert outcome.log.size == 0
    assert outcome.lost_cancels == 2 * 5  # nothing is decided at the last close


def test_a_million_orders_are_refused_one_by_one_and_more_than_a_call_may_ask_for_at_once():
    class Flooding(Strategy):
        count = Parameter(1_000.0, low=1.0, high=1e9, step=1.0)

        def on_trade(self, context, trade):
            for _ in range(int(self.count)):
                context.submit(BUY, 1.0, 1.0)

    trades = (np.arange(1_000) * (WIDTH_NS // 1_000), np.full(1_000, 100.0), np.ones(1_000))
    outcome = simulation(Flooding, flat(2), trades).run()
    refused = outcome.log[outcome.log["status"] == Status.TOO_MANY]
    assert refused.size > 999_000
    with pytest.raises(ValueError, match="more orders, cancels and replacements in one call"):
        simulation(Flooding, flat(2), trades, parameters={"count": context_of.MOST_REQUESTS + 1.0}).run()


def test_an_index_out_of_bounds_and_a_division_by_nothing_raise_as_in_python():
    class Outside(Strategy):
        seen = np.zeros(3)
        at: int = 0

        def on_bar(self, context, bar):
            self.seen[self.at] = bar.close
            self.at += 1

    class Dividing(Strategy):
        left: int = 3

        def on_bar(self, context, bar):
            self.left -= 1
            context.submit(BUY, 6.0 / self.left)

    with pytest.raises(IndexError):
        simulation(Outside, flat(9)).run()
    with pytest.raises(ZeroDivisionError):
        simulation(Dividing, flat(9)).run()


class Whole(Strategy):
    """Keeps a price where a whole number, or a flag, is kept."""

    entry: int = 0
    seen = 0
    is_long = False
    given = Parameter(0.0, low=0.0, high=9.0, step=1.0)

    def on_bar(self, context, bar):
        self.seen += 1
        self.is_long = bar.close > 0.0
        self.entry = 3.0
        if self.seen == 3:
            if self.given == 0.0:
                self.entry = bar.close + 0.5
            elif self.given == 1.0:
                self.seen, self.entry = 4, np.nan
            elif self.given == 2.0:
                self.entry += 0.25
            else:
                self.is_long = bar.close


class WholeAsPython(Whole):
    def on_bar(self, context, bar):
        {}.get(object())
        super().on_bar(context, bar)


WHOLE = [Whole, type("WholeToo", (WholeAsPython,), dict(vars(Whole)) | dict(vars(WholeAsPython)))]


@pytest.mark.parametrize("given", range(4))
@pytest.mark.parametrize("made", WHOLE)
def test_a_number_that_would_lose_its_fraction_is_not_kept(made, given):
    run = simulation(made, flat(9), parameters={"given": float(given)})
    assert bool(run.compiled.handlers) == (made is Whole)
    with pytest.raises(ValueError, match="is_long is kept as bool" if given == 3 else "entry is kept as int|NaN"):
        run.run()


class Asking(Strategy):
    """Asks for a symbol, or a column, that there is not."""

    which = Parameter(0.0, low=0.0, high=6.0, step=1.0)
    found = 0.0

    def on_bar(self, context, bar):
        if self.which == 0.0:
            self.found = context.position(4)
        elif self.which == 1.0:
            self.found = context.price(1)
        elif self.which == 2.0:
            self.found = context.depth(BUY, 1.0, 4)
        elif self.which == 3.0:
            self.found = context.close(0, 4)
        elif self.which == 4.0:
            self.found = context.value(0, 0, 4)
        elif self.which == 5.0:
            self.found = context.value(7)
        else:
            self.found = context.submit(BUY, 1.0, symbol=4)


@pytest.mark.parametrize("which", range(7))
def test_a_symbol_or_column_that_there_is_not_raises_compiled_as_well(which):
    run = simulation(Asking, flat(3), parameters={"which": float(which)})
    assert run.compiled.handlers == {Handler.BAR}
    with pytest.raises(ValueError, match="there is no such column" if which == 5 else "there is no such symbol"):
        run.run()


ABOVE = np.zeros(1)


def test_what_a_handler_changes_above_the_class_another_sees_as_well():
    class Sharing(Strategy):
        asked = 0.0

        def on_bar(self, context, bar):
            ABOVE[0] += 1.0
            context.submit(BUY, 1.0)

        def on_fill(self, context, fill):
            context.submit(SELL, 1.0 + ABOVE[0])

    run = simulation(Sharing, flat(4))
    assert not run.compiled.handlers
    assert "ABOVE, which stands above the class, is changed by on_bar" in run.compiled.uncompiled[1].why
    run.run()
    assert ABOVE[0] > 1.0


def test_numbers_in_texts_are_written_by_python(capsys):
    class Telling(Strategy):
        def on_bar(self, context, bar):
            print(f"at {bar.close}, {self.told(bar.close)}")  # noqa: T201

        def told(self, price):
            return str(price)

    run = simulation(Telling, flat(2))
    assert "texts with numbers in them" in run.compiled.uncompiled[0].why
    run.run()
    assert capsys.readouterr().out.splitlines()[0] == "at 100.0, 100.0"


def test_a_run_that_goes_through_python_at_every_bar_can_be_ended():
    class Slow(Strategy):
        def on_bar(self, context, bar):
            {}.get(object())

    class EndedHereError(Exception):
        pass

    def end(_):
        raise EndedHereError

    with pytest.raises(EndedHereError):
        simulation(Slow, flat(1_100)).run(end)


def test_timers_keep_their_own_time():
    class Ticking(Strategy):
        at = np.zeros(8, dtype=np.int64)
        calls: int = 0

        def on_timer(self, context):
            if self.calls < 8:
                self.at[self.calls] = context.now()
            self.calls += 1

        def on_bar(self, context, bar):
            if context.bar_count() == 3 and self.calls != 7:
                raise AssertionError("a timer comes before what happens at its moment")

    made = simulation(Ticking, flat(5), every_ms=WIDTH_NS / 2e6)
    made.run()
    record = made._own.record  # noqa: SLF001 - what a strategy keeps is nobody's business but its own
    assert record["at"][0].tolist() == [number * WIDTH_NS // 2 for number in range(8)]


def test_all_or_nothing_orders_take_their_force_from_the_strategy():
    class Killing(Strategy):
        def on_bar(self, context, bar):
            context.submit(BUY, 5.0, 1.0, force=FOK)

    outcome = simulation(Killing, flat(4)).run()
    assert set(outcome.log["status"].tolist()) == {Status.NOT_FILLED}
