"""The seeded market simulator: bars for the demo, tests and benches, repeatable to the byte.

Calm, trend and panic are regimes of a Markov chain; within a regime volatility clusters (GARCH) and returns
have Student-t tails. Such a return is a Brownian path whose speed is drawn once per bar, so a bar's high and
low are drawn as that path's own extremes and never need repair. The walk goes on through all trading time; an
outage only hides bars, so the hole ends at a price that has moved on.

The walk uses no exp or log: `2 (b - a) / (b + a)` stands in for `log(b / a)`, and its inverse for exp. IEEE
arithmetic and sqrt round alike everywhere; only NumPy's samplers ask the platform's libm, in rare tail and
rejection steps. NumPy may change its samplers between releases: bytes are promised per NumPy version.
"""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import NS_PER_DAY, Bars
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from daemon.core.market import Float64s, Int64s, Timeframe, TsNs

Bools: TypeAlias = NDArray[np.bool_]
Chance: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]

BLOCK = 8_192
"""Calendar bars walked at a time, always whole blocks: a shorter run is then a prefix of a longer one."""

HEAT_LIMIT = 64.0
"""Student-t shocks give GARCH no fourth moment: volatility stops at 8 times its regime's."""

EXACT = 2.0**53  # ticks and lots above it are no longer whole in float64
NS_PER_MINUTE = NS_PER_DAY // 1_440
DAYS_PER_WEEK = 7


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the market is open, in UTC all year: no holidays, no daylight saving.

    days_per_week: open days, counted from Monday.
    opens_minute, closes_minute: minutes after midnight UTC, half-open.
    """

    days_per_week: Annotated[int, Meta(ge=1, le=7)] = 7
    opens_minute: Annotated[int, Meta(ge=0, lt=1_440)] = 0
    closes_minute: Annotated[int, Meta(gt=0, le=1_440)] = 1_440

    def __post_init__(self) -> None:
        if self.opens_minute >= self.closes_minute:
            raise ValueError("`opens_minute` must be before `closes_minute`, on the same UTC day")

    def bars(self, starts: Int64s, bar_ns: int) -> tuple[Int64s, Bools]:
        """Keep the starts of bars that overlap a session; tell which of them follow a closed market."""
        opens, closes = self.opens_minute * NS_PER_MINUTE, self.closes_minute * NS_PER_MINUTE
        weekday = (starts // NS_PER_DAY - 4) % DAYS_PER_WEEK  # day 4 of Unix time, 1970-01-05, was a Monday
        time_of_day = starts % NS_PER_DAY
        traded = (weekday < self.days_per_week) & (time_of_day + bar_ns > opens) & (time_of_day < closes)
        rested = (closes - opens < NS_PER_DAY) | ((weekday == 0) & (self.days_per_week < DAYS_PER_WEEK))
        return starts[traded], (rested & (time_of_day <= opens))[traded]


CONTINUOUS = Session()
WEEKDAYS = Session(days_per_week=5, opens_minute=14 * 60 + 30, closes_minute=21 * 60)


class Regime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mood of the market; both figures are of log returns, per year of trading time (1.0 is 100 %)."""

    annual_drift: float
    annual_volatility: NotNegative


class MarketModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A market; the defaults resemble a large coin. A trading day is one session.

    start_price: quote currency, before the first bar.
    tick_size, lot_size: prices (quote currency) and volumes (base units) are exact multiples.
    regimes: a run starts in the first.
    daily_switching: [from][to], chance per trading day, spread over its bars; the diagonal is zero.
    annual_reversion: pull of the log price towards `start_price`, per year; 0 lets it wander off.
    volatility_shock, volatility_memory: GARCH(1,1) alpha and beta, per bar; 0 and 0 switch clustering off.
    tail_degrees: Student-t degrees of freedom of a bar's move; 1e6 is Gaussian.
    gap_chance, gap_volatility: of a jump where a session opens or an outage ends; its log standard deviation.
    daily_volume: base units per trading day, roughly.
    volume_following: share of volume in proportion to |return|; the rest is independent of it.
    outage_chance, outage_bars: chance per bar that the record breaks off, and for how many bars on average.
    """

    start_price: Annotated[float, Meta(gt=0)] = 30_000.0
    tick_size: Decimal = Decimal("0.01")
    lot_size: Decimal = Decimal("0.0001")
    regimes: Annotated[tuple[Regime, ...], Meta(min_length=1)] = (
        Regime(annual_drift=0.05, annual_volatility=0.35),  # calm
        Regime(annual_drift=3.0, annual_volatility=0.5),  # rising
        Regime(annual_drift=-3.0, annual_volatility=0.6),  # falling
        Regime(annual_drift=0.0, annual_volatility=1.2),  # turbulent
    )
    daily_switching: tuple[tuple[Chance, ...], ...] = (
        (0.00, 0.06, 0.05, 0.02),
        (0.12, 0.00, 0.04, 0.04),
        (0.08, 0.05, 0.00, 0.12),
        (0.30, 0.10, 0.15, 0.00),
    )
    annual_reversion: NotNegative = 0.5
    volatility_shock: Chance = 0.08
    volatility_memory: Chance = 0.9
    tail_degrees: Annotated[float, Meta(gt=2)] = 5.0
    gap_chance: Chance = 0.5
    gap_volatility: NotNegative = 0.01
    daily_volume: NotNegative = 20_000.0
    volume_following: Chance = 0.35
    outage_chance: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    outage_bars: Annotated[float, Meta(ge=1, le=10_000)] = 10.0

    def __post_init__(self) -> None:
        if not all(step.is_finite() and step > 0 for step in (self.tick_size, self.lot_size)):
            raise ValueError("`tick_size` and `lot_size` must be above 0")
        size = len(self.regimes)
        if [len(row) for row in self.daily_switching] != [size] * size:
            raise ValueError(f"`daily_switching` must be {size} rows of {size} chances, one per regime")
        if any(row[i] != 0 or sum(row) > 1 for i, row in enumerate(self.daily_switching)):
            raise ValueError("a row of `daily_switching` must have a zero diagonal and sum to at most 1")
        if self.volatility_shock + self.volatility_memory >= 1:
            raise ValueError("`volatility_shock` + `volatility_memory` must be below 1, to calm down again")


class Draws(NamedTuple):
    """The randomness of one block, each (n,).

    switching: uniform. shock: normal. speed: Student-t mixing weight, mean square 1.
    rise, fall: exponential, for the path's extremes. gap: log return of a jump, were there an occasion.
    breaks_off, resumes: the record would, if it is on or off. activity: positive, mean 1.
    """

    switching: Float64s
    shock: Float64s
    speed: Float64s
    rise: Float64s
    fall: Float64s
    gap: Float64s
    breaks_off: Bools
    resumes: Bools
    activity: Float64s

    @classmethod
    def of(cls, model: MarketModel, generator: Generator, bars: int) -> Draws:
        """Draw `bars` bars' worth."""
        freedom = model.tail_degrees
        jumps = generator.random(bars) < model.gap_chance
        return cls(
            switching=generator.random(bars),
            shock=generator.standard_normal(bars),
            speed=np.sqrt((freedom - 2) / (2 * generator.standard_gamma(freedom / 2, bars))),
            rise=generator.standard_exponential(bars),
            fall=generator.standard_exponential(bars),
            gap=jumps * model.gap_volatility * generator.standard_normal(bars),
            breaks_off=generator.random(bars) < model.outage_chance,
            resumes=generator.random(bars) < 1 / model.outage_bars,
            activity=generator.standard_gamma(4.0, bars) / 4,
        )


class Pace(NamedTuple):
    """The model per bar, in log returns, ticks and lots.

    drift, volatility: (r,) float64, of each regime. switching: (r, r) float64, cumulative along rows.
    """

    drift: Float64s
    volatility: Float64s
    switching: Float64s
    anchor: float
    reversion: float
    shock: float
    memory: float
    lots: float
    lots_per_move: float

    @classmethod
    def of(cls, model: MarketModel, session: Session, bar_ns: int) -> Pace:
        """Spread yearly and daily figures over the bars of a trading day."""
        days = min(bar_ns / ((session.closes_minute - session.opens_minute) * NS_PER_MINUTE), 1.0)
        years = days * DAYS_PER_WEEK / (365 * session.days_per_week)
        volatility = np.array([regime.annual_volatility for regime in model.regimes]) * math.sqrt(years)
        typical_move = float(volatility.mean()) * math.sqrt(2 / math.pi)
        lots = model.daily_volume * days / float(model.lot_size)
        return cls(
            drift=np.array([regime.annual_drift for regime in model.regimes]) * years,
            volatility=volatility,
            switching=np.cumsum(np.array(model.daily_switching) * days, axis=1),
            anchor=model.start_price / float(model.tick_size),
            reversion=model.annual_reversion * years,
            shock=model.volatility_shock,
            memory=model.volatility_memory,
            lots=lots * (1 - model.volume_following),
            lots_per_move=lots * model.volume_following / max(typical_move, 1e-12),
        )


class State(NamedTuple):
    """The market between two bars: price in ticks, heat as a multiple of the regime's variance."""

    price: float
    heat: float
    regime: int
    recording: bool


@kernel
def walk(state: State, pace: Pace, draws: Draws, reopens: Bools) -> tuple[State, Float64s, Bools]:
    """Walk through consecutive bars of trading time.

    One loop, longer than the house likes, so that a bar reads from top to bottom.

    reopens: (n,), the market was closed just before the bar.
    Returns the state after them; (5, n) open, high, low, close in ticks and volume in lots, finite, not yet
    rounded; (n,), whether the bar was recorded. low <= open, close <= high holds without repair, rounded too:
    `moved` and rint are monotone, and sqrt(x * x + y) >= |x|.
    Source: the maximum of a Brownian bridge, Glasserman, Monte Carlo Methods in Financial Engineering (2003),
    6.4, where -log of a uniform draw is our exponential one. High and low are each exact, jointly not.
    """

    def moved(price: float, log_return: float) -> float:
        bounded = min(max(log_return, -1.0), 1.0)
        return min(max(price * (2.0 + bounded) / (2.0 - bounded), 1.0), EXACT)

    price, heat, regime, recording = state
    columns = np.empty((5, len(reopens)))
    recorded = np.empty(len(reopens), np.bool_)
    for i in range(len(reopens)):
        for successor in range(len(pace.drift)):
            if draws.switching[i] < pace.switching[regime, successor]:
                regime = successor
                break
        resumes = draws.resumes[i] and not recording
        recording = resumes or (recording and not draws.breaks_off[i])
        if resumes or reopens[i]:
            price = moved(price, draws.gap[i])

        deviation = pace.volatility[regime] * math.sqrt(heat) * draws.speed[i]
        pull = pace.reversion * 2.0 * (pace.anchor - price) / (pace.anchor + price)
        change = pace.drift[regime] + pull + deviation * draws.shock[i]
        spread = 2.0 * deviation * deviation
        columns[0, i] = price
        columns[1, i] = moved(price, (change + math.sqrt(change * change + spread * draws.rise[i])) / 2.0)
        columns[2, i] = moved(price, (change - math.sqrt(change * change + spread * draws.fall[i])) / 2.0)
        price = moved(price, change)
        columns[3, i] = price
        columns[4, i] = pace.lots * draws.activity[i] + pace.lots_per_move * abs(change)
        recorded[i] = recording

        surprise = draws.speed[i] * draws.shock[i]
        heat *= pace.memory + pace.shock * surprise * surprise
        heat = min(heat + 1.0 - pace.memory - pace.shock, HEAT_LIMIT)
    return State(price, heat, regime, recording), columns, recorded


def simulate(
    model: MarketModel,
    *,
    seed: int,
    start_ns: TsNs,
    bars: int,
    timeframe: Timeframe,
    session: Session = CONTINUOUS,
) -> Bars:
    """Simulate the first `bars` recorded bars that start at `start_ns` or later.

    seed: >= 0. Fewer bars of the same seed and start are a prefix of more.
    Raises InvalidRequest near the year 2262, where int64 nanoseconds end.
    """
    starts, columns, filled = np.empty(bars, dtype=np.int64), np.empty((5, bars)), 0
    blocks = _blocks(model, np.random.Generator(np.random.PCG64(seed)), start_ns, timeframe.ns, session)
    while filled < bars:
        block_starts, block_columns = next(blocks)
        taken = slice(filled, filled + len(block_starts))
        starts[taken] = block_starts[: bars - filled]
        columns[:, taken] = block_columns[:, : bars - filled]
        filled += len(block_starts)
    open_, high, low, close = _exact(columns[:4], model.tick_size)
    return Bars(starts, open_, high, low, close, _exact(columns[4], model.lot_size))


def _blocks(
    model: MarketModel, generator: Generator, start_ns: TsNs, bar_ns: int, session: Session
) -> Iterator[tuple[Int64s, Float64s]]:
    """Walk on without end: recorded starts, and columns as `walk` gives them."""
    pace = Pace.of(model, session, bar_ns)
    state = State(price=pace.anchor, heat=1.0, regime=0, recording=True)
    first = -(-start_ns // bar_ns)
    for bar in count(first, BLOCK):
        if (bar + BLOCK) * bar_ns > np.iinfo(np.int64).max:
            raise InvalidRequest(
                Code.INVALID_DATE_RANGE,
                "the simulated bars run into the year 2262, where time ends; ask for fewer or start earlier",
            )
        starts, reopens = session.bars(np.arange(bar, bar + BLOCK) * bar_ns, bar_ns)
        state, columns, recorded = walk(state, pace, Draws.of(model, generator, len(starts)), reopens)
        yield starts[recorded], columns[:, recorded]


def _exact(steps: Float64s, step: Decimal) -> Float64s:
    """Round to whole steps; a single rounded division yields the float64 nearest to each decimal."""
    numerator, denominator = step.as_integer_ratio()
    return np.minimum(np.rint(steps), EXACT // numerator) * numerator / denominator
