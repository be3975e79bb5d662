"""The seeded market simulator: bars for the demo, for tests and for benches, where every byte must be repeatable.

Trend, calm and panic are regimes of a Markov chain; inside a regime volatility clusters (GARCH) and returns have
Student-t tails. A Student-t move is a Brownian path whose speed is drawn once per bar, so that a bar's high and low
are drawn from that path's own extremes and never have to be repaired. The walk runs through all trading time;
outages then hide bars, so that a hole ends at a price which has moved on.

The walk uses no exp or log: `2 (b - a) / (b + a)` stands in for `log(b / a)`, and its inverse for exp. IEEE
arithmetic and sqrt round alike everywhere; only NumPy's samplers consult the platform's libm, in rare rejection
steps. NumPy may change its samplers between releases: bytes are promised per NumPy version.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import NS_PER_DAY, Bars, Float64s, Int64s, Timeframe, TsNs
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from numpy.random import Generator

Chance: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]
Step: TypeAlias = Annotated[Decimal, Meta(gt=0)]
Bools: TypeAlias = NDArray[np.bool_]
Slots = TypeVar("Slots", int, Int64s)

BLOCK = 16_384
"""Bars drawn at a time. Whole blocks only, so that a shorter run is a prefix of a longer one; part of the stream."""

LARGEST_EXACT = 2.0**53
"""Ticks and lots above it are no longer whole in float64."""

HEAT_LIMIT = 64.0
"""GARCH with Student-t shocks has no fourth moment: volatility stops at 8 times its regime's."""


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
            raise ValueError("`opens_minute` must be before `closes_minute`: a session lies within one UTC day")


CONTINUOUS = Session()
WEEKDAYS = Session(days_per_week=5, opens_minute=14 * 60 + 30, closes_minute=21 * 60)


class Regime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mood of the market; both figures are logarithmic and per year of trading time (1.0 = 100 %)."""

    annual_drift: float
    annual_volatility: NotNegative


CALM = Regime(annual_drift=0.05, annual_volatility=0.35)
RISING = Regime(annual_drift=3.0, annual_volatility=0.5)
FALLING = Regime(annual_drift=-3.0, annual_volatility=0.6)
TURBULENT = Regime(annual_drift=0.0, annual_volatility=1.2)


class MarketModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A market; the defaults resemble a large coin. A trading day is one session, a year has 365 / 7 weeks of them.

    start_price: quote currency, before the first bar.
    tick_size, lot_size: prices (quote currency) and volumes (base units) are exact multiples.
    regimes: the first is where a run starts.
    daily_switching: [from][to], chance per trading day, spread evenly over its bars; the diagonal is zero.
    annual_reversion: pull of the log price towards `start_price`, per year; 0 lets it wander off.
    volatility_shock, volatility_memory: GARCH(1,1) alpha and beta, per bar; 0 and 0 switch clustering off.
    tail_degrees: Student-t degrees of freedom of a bar's move; 1e6 is Gaussian.
    gap_chance, gap_volatility: how often a session's or outage's end jumps, and the jump's log standard deviation.
    daily_volume: base units per trading day, roughly.
    volume_following: share of volume proportional to the bar's |return|; the rest is independent of it.
    outage_chance, outage_bars: chance per bar that the record breaks off, and for how many bars on average.
    """

    start_price: Positive = 30_000.0
    tick_size: Step = Decimal("0.01")
    lot_size: Step = Decimal("0.0001")
    regimes: Annotated[tuple[Regime, ...], Meta(min_length=1)] = (CALM, RISING, FALLING, TURBULENT)
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
    volume_following: Chance = 0.6
    outage_chance: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    outage_bars: Annotated[float, Meta(ge=1, le=10_000)] = 10.0

    def __post_init__(self) -> None:
        count = len(self.regimes)
        if [len(row) for row in self.daily_switching] != [count] * count:
            raise ValueError(f"`daily_switching` must be {count} rows of {count} chances, one per regime")
        if any(row[i] != 0 or sum(row) > 1 for i, row in enumerate(self.daily_switching)):
            raise ValueError("each row of `daily_switching` must be zero on the diagonal and sum to at most 1")
        if self.volatility_shock + self.volatility_memory >= 1:
            raise ValueError("`volatility_shock` + `volatility_memory` must be below 1, or volatility never returns")


class Grid(NamedTuple):
    """A session cut into bars. Slots number its bars without the closed hours; slot 0 is in the week of 1970-01-05."""

    session: Session
    bar_ns: int
    first_ns: int
    bars_per_day: int

    @classmethod
    def of(cls, session: Session, timeframe: Timeframe) -> Grid:
        """Keep every aligned bar that overlaps the session."""
        minute_ns = NS_PER_DAY // 1_440
        first = session.opens_minute * minute_ns // timeframe.ns
        last = -(-session.closes_minute * minute_ns // timeframe.ns)
        return cls(session, timeframe.ns, first * timeframe.ns, last - first)

    def slot_from(self, ts: TsNs) -> int:
        """First slot that starts at `ts` or later."""
        week, day = divmod(ts // NS_PER_DAY - 4, 7)  # 1970-01-05, day 4 of Unix time, was a Monday
        if day >= self.session.days_per_week:
            return (week + 1) * self.session.days_per_week * self.bars_per_day
        slot = -((self.first_ns - ts % NS_PER_DAY) // self.bar_ns)
        return (week * self.session.days_per_week + day) * self.bars_per_day + min(max(slot, 0), self.bars_per_day)

    def starts(self, slots: Slots) -> Slots:
        """Slots to the TsNs their bars start at."""
        day, bar = slots // self.bars_per_day, slots % self.bars_per_day
        week, weekday = day // self.session.days_per_week, day % self.session.days_per_week
        return (4 + week * 7 + weekday) * NS_PER_DAY + self.first_ns + bar * self.bar_ns

    def reopens(self, slots: Int64s) -> Bools:
        """True where the market was closed just before the bar."""
        if self.session.closes_minute - self.session.opens_minute < 1_440:  # noqa: PLR2004 - minutes of a day
            return slots % self.bars_per_day == 0
        if self.session.days_per_week < 7:  # noqa: PLR2004 - days of a week
            return slots % (self.bars_per_day * self.session.days_per_week) == 0
        return np.zeros(len(slots), dtype=np.bool_)


class Draws(NamedTuple):
    """All randomness of one block, each (n,) float64; drawn in this order.

    switching, outage: uniform. shock: normal. speed: Student-t mixing weight, E[speed^2] = 1.
    rise, fall: exponential, for the Brownian extremes. gap: log return of a jump, mostly 0 if jumps are rare.
    activity: positive, mean 1.
    """

    switching: Float64s
    outage: Float64s
    shock: Float64s
    speed: Float64s
    rise: Float64s
    fall: Float64s
    gap: Float64s
    activity: Float64s

    @classmethod
    def of(cls, model: MarketModel, generator: Generator, count: int) -> Draws:
        """Draw `count` bars' worth."""
        freedom = model.tail_degrees
        jumps = generator.random(count) < model.gap_chance
        return cls(
            switching=generator.random(count),
            outage=generator.random(count),
            shock=generator.standard_normal(count),
            speed=np.sqrt((freedom - 2) / (2 * generator.standard_gamma(freedom / 2, count))),
            rise=generator.standard_exponential(count),
            fall=generator.standard_exponential(count),
            gap=np.where(jumps, model.gap_volatility * generator.standard_normal(count), 0.0),
            activity=generator.standard_gamma(4.0, count) / 4,
        )


class Pace(NamedTuple):
    """The model per bar: what the walk multiplies draws by. Prices in ticks, volumes in lots.

    drift, volatility: (r,) float64, log return per bar of each regime.
    switching: (r, r) float64, row-wise cumulative chance.
    """

    drift: Float64s
    volatility: Float64s
    switching: Float64s
    anchor: float
    reversion: float
    shock: float
    memory: float
    outage_chance: float
    resume_chance: float
    lots: float
    lots_per_move: float

    @classmethod
    def of(cls, model: MarketModel, session: Session, timeframe: Timeframe) -> Pace:
        """Spread yearly and daily figures over the bars of a trading day."""
        session_ns = (session.closes_minute - session.opens_minute) * (NS_PER_DAY // 1_440)
        days = min(timeframe.ns / session_ns, 1.0)
        years = days * 7 / (365 * session.days_per_week)
        volatility = np.array([regime.annual_volatility for regime in model.regimes]) * math.sqrt(years)
        lots = model.daily_volume * days / float(model.lot_size)
        typical_move = math.sqrt(2 / math.pi) * float(volatility.mean())
        return cls(
            drift=np.array([regime.annual_drift for regime in model.regimes]) * years,
            volatility=volatility,
            switching=np.cumsum(np.array(model.daily_switching, dtype=np.float64) * days, axis=1),
            anchor=model.start_price / float(model.tick_size),
            reversion=2 * model.annual_reversion * years,
            shock=model.volatility_shock,
            memory=model.volatility_memory,
            outage_chance=model.outage_chance,
            resume_chance=1 / model.outage_bars,
            lots=lots * (1 - model.volume_following),
            lots_per_move=lots * model.volume_following / typical_move if typical_move else 0.0,
        )


class State(NamedTuple):
    """Where the walk stands between two bars: price in ticks, heat as a multiple of the regime's variance."""

    price: float
    heat: float
    regime: int
    recording: bool


@kernel
def walk(state: State, pace: Pace, draws: Draws, reopens: Bools) -> tuple[State, Float64s, Bools]:
    """Walk through one block of bars.

    reopens: (n,) bool, the market was closed just before the bar.
    Returns the state after the block; (5, n) float64 open, high, low, close in ticks and volume in lots, not yet
    rounded, finite; (n,) bool, whether the bar was recorded.
    Source: extremes of a Brownian bridge, Glasserman (2003), Monte Carlo Methods in Financial Engineering, 6.4;
    each is exact by itself, the dependence between the two is ignored. An exponential draw is minus the log of a
    uniform one. High and low need no repair: `moved` rises with its log return, and sqrt(x * x + y) >= abs(x).
    """

    def moved(price: float, log_return: float) -> float:
        bounded = min(max(log_return, -1.0), 1.0)
        return min(max(price * (2.0 + bounded) / (2.0 - bounded), 1.0), LARGEST_EXACT)

    price, heat, regime, recording = state
    columns = np.empty((5, len(reopens)))
    recorded = np.empty(len(reopens), np.bool_)
    for i in range(len(reopens)):
        for successor in range(len(pace.drift)):
            if draws.switching[i] < pace.switching[regime, successor]:
                regime = successor
                break
        was_recording = recording
        recording = draws.outage[i] >= pace.outage_chance if recording else draws.outage[i] < pace.resume_chance
        recorded[i] = recording
        if reopens[i] or (recording and not was_recording):
            price = moved(price, draws.gap[i])

        deviation = pace.volatility[regime] * math.sqrt(heat) * draws.speed[i]
        pull = pace.reversion * (pace.anchor - price) / (pace.anchor + price)
        change = pace.drift[regime] + pull + deviation * draws.shock[i]
        spread = 2.0 * deviation * deviation
        columns[0, i] = price
        columns[1, i] = moved(price, (change + math.sqrt(change * change + spread * draws.rise[i])) / 2.0)
        columns[2, i] = moved(price, (change - math.sqrt(change * change + spread * draws.fall[i])) / 2.0)
        price = moved(price, change)
        columns[3, i] = price
        columns[4, i] = pace.lots * draws.activity[i] + pace.lots_per_move * abs(change)

        surprise = draws.speed[i] * draws.shock[i]
        kept = pace.memory + pace.shock * surprise * surprise
        heat = min(1.0 - pace.shock - pace.memory + kept * heat, HEAT_LIMIT)
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
    """Simulate the first `bars` recorded bars at or after `start_ns`.

    seed: >= 0. Fewer bars with the same seed are a prefix of more.
    Raises InvalidRequest where the bars would run past the year 2262, the end of int64 nanoseconds.
    """
    grid, pace = Grid.of(session, timeframe), Pace.of(model, session, timeframe)
    generator = np.random.Generator(np.random.PCG64(seed))
    state = State(price=pace.anchor, heat=1.0, regime=0, recording=True)
    slots, columns = np.empty(bars, dtype=np.int64), np.empty((5, bars))
    filled, block = 0, grid.slot_from(start_ns) + np.arange(BLOCK)
    while filled < bars:
        state, walked, recorded = walk(state, pace, Draws.of(model, generator, BLOCK), grid.reopens(block))
        picked = np.flatnonzero(recorded)[: bars - filled]
        slots[filled : filled + len(picked)] = block[picked]
        columns[:, filled : filled + len(picked)] = walked[:, picked]
        filled, block = filled + len(picked), block + BLOCK

    if bars and grid.starts(int(slots[-1])) > np.iinfo(np.int64).max:
        raise InvalidRequest(
            Code.INVALID_DATE_RANGE,
            f"{bars} bars of {timeframe} run past the year 2262; ask for fewer or start earlier",
        )
    return Bars(grid.starts(slots), *_exact(columns[:4], model.tick_size), _exact(columns[4], model.lot_size))


def _exact(steps: Float64s, step: Decimal) -> Float64s:
    """Round to whole steps; one correctly rounded division makes each the float64 nearest to its decimal."""
    numerator, denominator = step.as_integer_ratio()
    return np.minimum(np.rint(steps), LARGEST_EXACT // numerator) * numerator / denominator
