"""A backtest as the engine gets it: what every configuration that a user may write comes down to.

Nothing here is left open: defaults are filled in, symbols are resolved, texts are numbers. `research.backtest_config`
reads what users write. Rates and fractions are plain fractions (0.001 is 0.1 %), money is in quote currency.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from daemon.core.execution import Latency, Queue
from daemon.core.market import Instrument, Timeframe, TsNs
from daemon.core.strategy import Condition
from daemon.core.ticks import Stream

Positive: TypeAlias = Annotated[float, Meta(gt=0)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]
Rate: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]


class Reason(IntEnum):
    """Why an order was sent; the numbers are stored, they never change."""

    ENTRY = 0
    TAKE_PROFIT = 1
    STOP_LOSS = 2
    TRAILING_STOP = 3
    SIGNAL = 4
    TIMEOUT = 5
    LIQUIDATION = 6
    MANUAL = 7  # the end of the data, or an order of the user's own list


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all parts of a specification are."""


# Orders.


class Distance(_Struct, frozen=True):
    """How far from a price. FRACTION: of that price. PRICE: in quote currency. ATR: times the ATR at the decision."""

    unit: Literal["fraction", "price", "atr"]
    value: Positive


class Trailing(_Struct, frozen=True):
    """A stop that follows the best price. activation: gain from which it begins to, None from the entry."""

    distance: Distance
    activation: Distance | None = None


class Exits(_Struct, frozen=True):
    """What closes a position besides signals; None switches an exit off. timeout_bars: bars held."""

    take_profit: Distance | None = None
    stop_loss: Distance | None = None
    trailing_stop: Trailing | None = None
    timeout_bars: Count | None = None


TimeInForce: TypeAlias = Literal["GTC", "GTD", "IOC", "FOK"]
OrderType: TypeAlias = Literal["market", "limit", "stop", "stop_limit", "trailing_stop", "take_profit"]


class EntryOrder(_Struct, frozen=True):
    """How entries are sent.

    offset: from the close of the signal's bar to the price: below it for a long limit, above it for a long stop.
    limit_offset: of stop_limit, from the stop to the limit, on the far side. good_for_bars: of GTD.
    """

    type: Literal["market", "limit", "stop", "stop_limit"] = "market"
    offset: Distance | None = None
    limit_offset: Distance | None = None
    time_in_force: TimeInForce = "GTC"
    good_for_bars: Count | None = None
    post_only: bool = False


class ListedOrder(_Struct, frozen=True, kw_only=True):
    """An order of the user's own list.

    time_ns: when it is sent. Exactly one of quantity (base units) and notional (quote); both None closes the position
    (then reduce_only holds). price: of a limit, take_profit or stop_limit; stop_price: of a stop or stop_limit.
    trail: of trailing_stop. oco: orders of one symbol with the same number cancel each other.
    """

    time_ns: TsNs
    symbol: int
    side: Literal["buy", "sell"]
    type: OrderType = "market"
    quantity: Positive | None = None
    notional: Positive | None = None
    price: Positive | None = None
    stop_price: Positive | None = None
    trail: Trailing | None = None
    time_in_force: TimeInForce = "GTC"
    expires_ns: TsNs | None = None
    post_only: bool = False
    reduce_only: bool = False
    oco: Annotated[int, Meta(ge=0)] = 0
    exits: Exits = Exits()


# What is traded: programs.


class Rules(_Struct, frozen=True, tag_field="program", tag="rules"):
    """Conditions at a bar's close. Entries: all of a list; exits: any; an empty list never fires.

    strategy_id: of the registry, None for the user's own.
    """

    entry_long: tuple[Condition, ...] = ()
    entry_short: tuple[Condition, ...] = ()
    exit_long: tuple[Condition, ...] = ()
    exit_short: tuple[Condition, ...] = ()
    strategy_id: int | None = None


class Grid(_Struct, frozen=True, tag_field="program", tag="grid"):
    """Limit orders below and above the first close, each answered by its opposite a step away when it fills.

    levels: on each side. step: between levels, a fraction of the first close. fraction: of the symbol's share of the
    equity, for all levels of a side together. sides: below alone (long), or both (needs a short side).
    """

    levels: Annotated[int, Meta(ge=1, le=50)] = 5
    step: Annotated[float, Meta(gt=0, lt=0.5)] = 0.01
    fraction: Annotated[float, Meta(gt=0, le=1)] = 1.0
    sides: Literal["long", "both"] = "long"


class Averaging(_Struct, frozen=True, tag_field="program", tag="dca"):
    """Buys of equal worth at regular bars. every_bars: between buys. purchases: into how many the share is divided."""

    every_bars: Count = 1_440
    purchases: Count = 10


class OrderList(_Struct, frozen=True, tag_field="program", tag="orders"):
    """The user's own orders, in order of time."""

    orders: tuple[ListedOrder, ...]


class Own(_Struct, frozen=True, tag_field="program", tag="own"):
    """A strategy of the user's own: the one class with handlers in a Python file.

    id: of the file in the strategy folder, its name without `.py`. digest: SHA-256 of its source, hex. parameters: by
    name, those that were given; the others have the file's defaults.
    """

    id: str
    digest: str
    parameters: dict[str, float] = {}


Program: TypeAlias = Rules | Grid | Averaging | OrderList | Own


# How much.


class Fixed(_Struct, frozen=True, tag_field="type", tag="fixed"):
    """The same every time: exactly one of quantity (base units) and notional (quote currency)."""

    quantity: Positive | None = None
    notional: Positive | None = None

    def __post_init__(self) -> None:
        if (self.quantity is None) == (self.notional is None):
            raise ValueError("give exactly one of `quantity` and `notional`")


class FixedFractional(_Struct, frozen=True, tag_field="type", tag="fixed_fractional"):
    """A fraction of the symbol's share of the equity; leverage allows more than 1."""

    fraction: Positive = 1.0


class Kelly(_Struct, frozen=True, tag_field="type", tag="kelly"):
    """p - (1 - p) / b of the trades closed so far, times `fraction`, no more than `cap` of the symbol's share.

    p: share of winners. b: average win / average loss. Until `least_trades` are closed, `start` of the share.
    Source: Kelly (1956).
    """

    fraction: Annotated[float, Meta(gt=0, le=1)] = 0.5
    cap: Positive = 1.0
    least_trades: Annotated[int, Meta(ge=1, le=100_000)] = 20
    start: Annotated[float, Meta(gt=0, le=1)] = 0.1


class VolatilityTarget(_Struct, frozen=True, tag_field="type", tag="volatility"):
    """Worth target / annual volatility of the symbol's share, no more than `cap` of it."""

    target: Positive = 0.2
    cap: Positive = 1.0


class AtrRisk(_Struct, frozen=True, tag_field="type", tag="atr"):
    """So much that a move of `multiple` ATR loses `risk` of the symbol's share."""

    risk: Annotated[float, Meta(gt=0, le=1)] = 0.01
    multiple: Positive = 2.0


Sizing: TypeAlias = Fixed | FixedFractional | Kelly | VolatilityTarget | AtrRisk


# What it costs. Formulas and sources: `engine.costs`.


class NoSlippage(_Struct, frozen=True, tag_field="model", tag="none"):
    """Fills at the reference price, any quantity."""


class FixedBps(_Struct, frozen=True, tag_field="model", tag="fixed_bps"):
    """A constant in basis points of the price, any quantity."""

    bps: NotNegative = 5.0


class VolumeWeighted(_Struct, frozen=True, tag_field="model", tag="volume_weighted"):
    """half_spread_bps + impact x participation^2; participation: order / volume of the bar."""

    impact: NotNegative = 0.1
    half_spread_bps: NotNegative = 1.0
    participation_cap: Annotated[float, Meta(gt=0, le=1)] = 0.025


class SquareRoot(_Struct, frozen=True, tag_field="model", tag="square_root"):
    """half_spread_bps + y x daily volatility x sqrt(order / daily volume)."""

    y: NotNegative = 1.0
    half_spread_bps: NotNegative = 1.0
    participation_cap: Annotated[float, Meta(gt=0, le=1)] = 0.1


class Almgren2005(_Struct, frozen=True, tag_field="model", tag="almgren_2005"):
    """Permanent and temporary impact of Almgren, Thum, Hauptmann and Li (2005).

    turnover_days: shares outstanding / daily volume (263 for IBM in the paper, 87 for DRI).
    execution_days: how long the order takes, None for one bar.
    """

    gamma: NotNegative = 0.314
    eta: NotNegative = 0.142
    turnover_days: Positive = 200.0
    execution_days: Positive | None = None
    half_spread_bps: NotNegative = 1.0
    participation_cap: Annotated[float, Meta(gt=0, le=1)] = 0.1


class AlmgrenChriss(_Struct, frozen=True, tag_field="model", tag="almgren_chriss"):
    """Mean cost of the optimal liquidation of Almgren and Chriss (2000), in equal intervals.

    gamma: permanent: by what fraction the price moves for a day's volume. eta: temporary: what fraction is paid at a
    rate of a day's volume a day. None takes the paper's convention: trading permanent_volume of the daily volume moves
    the price by one spread, each temporary_volume of it costs one spread. slices: intervals. execution_days: how long
    they take together, None for one bar. risk_aversion: the paper's lambda times the worth of a day's volume (1e-6 is
    250 for its share, 5 million at 50); 0 trades evenly.
    """

    gamma: NotNegative | None = None
    eta: NotNegative | None = None
    permanent_volume: Annotated[float, Meta(gt=0, le=1)] = 0.1
    temporary_volume: Annotated[float, Meta(gt=0, le=1)] = 0.01
    slices: Annotated[int, Meta(ge=1, le=1_000)] = 5
    execution_days: Positive | None = None
    risk_aversion: NotNegative = 250.0
    half_spread_bps: NotNegative = 1.0
    participation_cap: Annotated[float, Meta(gt=0, le=1)] = 0.1


class Kyle(_Struct, frozen=True, tag_field="model", tag="kyle"):
    """half_spread_bps + half of how far the order moves the price: y x daily volatility x order / daily volume.

    Kyle's lambda, quote currency a base unit, is y x daily volatility x price / daily volume.
    """

    y: NotNegative = 1.0
    half_spread_bps: NotNegative = 1.0
    participation_cap: Annotated[float, Meta(gt=0, le=1)] = 0.1


class OrderBook(_Struct, frozen=True, tag_field="model", tag="order_book"):
    """What walking the stored book costs: the mean price of the levels that an order takes.

    levels: how many of each side are looked at; an order takes no more than they hold together. On fills against the
    book itself there is nothing to configure: orders take its levels one by one.
    """

    levels: Annotated[int, Meta(ge=1, le=50)] = 20


Slippage: TypeAlias = (
    NoSlippage | FixedBps | VolumeWeighted | SquareRoot | Almgren2005 | AlmgrenChriss | Kyle | OrderBook
)


class Costs(_Struct, frozen=True):
    """Fees and slippage. fixed_fee: per fill, quote currency. scale: factor on all of them (stress tests)."""

    maker_rate: Rate
    taker_rate: Rate
    fixed_fee: NotNegative = 0.0
    slippage: Slippage = VolumeWeighted()
    scale: NotNegative = 1.0


class Account(_Struct, frozen=True):
    """Money and its limits.

    maintenance_margin: fraction of the position's worth at which it is liquidated. liquidation_rate: what the venue
    takes then, of the worth. max_positions: open at once. max_position_notional: of one position, quote currency.
    """

    initial_capital: Positive = 10_000.0
    leverage: Annotated[float, Meta(ge=1, le=200)] = 1.0
    maintenance_margin: Annotated[float, Meta(ge=0, lt=1)] = 0.005
    liquidation_rate: Rate = 0.005
    max_positions: Count | None = None
    max_position_notional: Positive | None = None


class Funding(_Struct, frozen=True):
    """What a perpetual's longs pay its shorts. source `none` is zero. rate: of `constant`, per interval."""

    source: Literal["none", "constant", "series"] = "none"
    rate: float = 0.0
    interval_hours: Annotated[int, Meta(ge=1, le=24)] = 8


# All of it.


class Market(_Struct, frozen=True):
    """One symbol of a backtest.

    source: what its bars come from. tick_size, lot_size: steps of price and quantity, 0 for none.
    volume_unit: what its bars count, base units or quote currency. slippage: its own, None for that of the costs.
    """

    instrument: Instrument
    source: Timeframe | Stream
    tick_size: NotNegative = 0.0
    lot_size: NotNegative = 0.0
    min_notional: NotNegative = 0.0
    volume_unit: Literal["base", "quote"] = "base"
    slippage: Slippage | None = None


class MonteCarlo(_Struct, frozen=True, rename="camel"):
    """What a user asks of the Monte Carlo simulation. seed: of its random numbers."""

    enabled: bool = False
    iterations: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    confidence_level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Meta(ge=0, lt=1 << 53)] = 1


Target: TypeAlias = Literal["sharpe", "return", "calmar", "sortino"]


class Validation(_Struct, frozen=True, rename="camel"):
    """What a user asks of the validation.

    window_size, step_size: days of training and of the test after it. mode: whether the training keeps its length or
    its start. target: by which parameters are chosen. parameters: what is tried, values by name; None for the usual
    factors on exits and lengths.
    """

    walk_forward: bool = False
    window_size: Annotated[int, Meta(ge=1, le=10_000)] = 30
    step_size: Annotated[int, Meta(ge=1, le=10_000)] = 7
    mode: Literal["rolling", "anchored"] = "rolling"
    target: Target = "sharpe"
    parameters: dict[str, tuple[float, ...]] | None = None
    monte_carlo: MonteCarlo = MonteCarlo()
    sensitivity: bool = False


class BacktestSpec(_Struct, frozen=True, kw_only=True):
    """A backtest, complete.

    start_ns, stop_ns: [start, stop) of the bars that are traded, None as far as there are any. sides: which a rule may
    open. fills: what fills are made against. limit_fills: whether a price that is only touched fills a resting limit
    order. calendar_days: a year's days, 365 or 252, None to judge by the data. readings: how the configuration was
    understood, in sentences.
    """

    name: str
    markets: tuple[Market, ...]
    timeframe: Timeframe
    start_ns: TsNs | None = None
    stop_ns: TsNs | None = None
    program: Program
    exits: Exits = Exits()
    entry_order: EntryOrder = EntryOrder()
    sizing: Sizing = FixedFractional()
    costs: Costs
    account: Account = Account()
    funding: Funding = Funding()
    latency: Latency = Latency()
    fills: Literal["bars", "ticks", "book"] = "bars"
    queue: Queue = Queue()
    limit_fills: Literal["touch", "through"] = "touch"
    calendar_days: Literal[252, 365] | None = None
    validation: Validation | None = None
    readings: tuple[str, ...] = ()


def slippages_of(spec: BacktestSpec) -> list[Slippage]:
    """Return what each market's fills pay beside fees, in the order of the markets."""
    return [market.slippage or spec.costs.slippage for market in spec.markets]


EXIT_WORDS: Final[dict[Reason, str]] = {
    Reason.TAKE_PROFIT: "take_profit",
    Reason.STOP_LOSS: "stop_loss",
    Reason.TRAILING_STOP: "trailing_stop",
    Reason.SIGNAL: "signal",
    Reason.TIMEOUT: "timeout",
    Reason.LIQUIDATION: "liquidation",
    Reason.MANUAL: "manual",
}
"""What the app calls the reasons of exits."""
