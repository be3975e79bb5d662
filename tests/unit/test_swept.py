"""What specifications are run as where they are run many times, and what is said of that."""

import msgspec
import pytest

from daemon.core.backtest import BacktestSpec, Costs, Market, OrderList, Own, Rules
from daemon.core.execution import Latency
from daemon.core.market import Instrument, Timeframe
from daemon.research.swept import said_of, swept

DRAWN = Latency(feed_ns=3, feed_spread_ns=5, order_ns=4, seed=7)
OWN = Own("mine", "00")


def spec(program, fills, latency=DRAWN):
    market = Market(instrument=Instrument("x", "A"), source=Timeframe.SEC_1)
    return BacktestSpec(
        name="s",
        markets=(market,),
        timeframe=Timeframe.SEC_1,
        program=program,
        costs=Costs(maker_rate=0.0, taker_rate=0.0),
        fills=fills,
        latency=latency,
    )


@pytest.mark.parametrize(("program", "fills"), [(Rules(), "bars"), (OWN, "bars"), (OWN, "ticks"), (OWN, "book")])
def test_what_is_run_as_it_is_configured_needs_no_words(program, fills):
    asked = spec(program, fills)
    assert swept(asked) is asked
    assert said_of(asked) is None


@pytest.mark.parametrize(("program", "what"), [(Rules(), "rules"), (OrderList(()), "its orders")])
def test_what_is_run_on_bars_instead_is_called_by_its_name(program, what):
    asked = spec(program, "book")
    assert swept(asked) == msgspec.structs.replace(asked, fills="bars", latency=Latency(feed_ns=3, order_ns=4))
    assert said_of(asked) == (
        f"the configuration asks for fills against the book: {what} were run on bars, pessimistically, "
        "without what is drawn or measured of the latency"
    )
    constant = said_of(spec(program, "ticks", Latency(order_ns=4, seed=7)))
    assert constant.endswith(f"fills against ticks: {what} were run on bars, pessimistically")
