"""A probe request to a plan: checked, resolved to stored series, split into one job per (symbol, timeframe)."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument, Timeframe, TsNs
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore, Series
    from daemon.store.ticks import TickSeries

RUN_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,50}")
T = TypeVar("T")

_MAX_SYMBOLS: Final = 10_000
_FIRST_DAY: Final = date(1678, 1, 1)
_LAST_DAY: Final = date(2261, 12, 31)

# One core, warm, measured: `atlasd bench probe`.
_SECONDS_PER_BAR_AND_COMBINATION: Final = 1.2e-8


class ProbeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[probe]` of config.toml. risk_profiles: factors on the strategies' exits, by name."""

    risk_profiles: dict[str, RiskProfile]


class ProbeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a user asks for; null means everything there is.

    start_date begins at 00:00 UTC, end_date is included whole; both `YYYY-MM-DD`.
    """

    symbols: list[str]
    timeframes: list[str]
    risk_profiles: list[str] | None = None
    strategy_ids: list[int] | None = None
    start_date: str | None = None
    end_date: str | None = None
    persist_trades: bool = False
    run_id: str | None = None


# What bars come from: stored bars, or a stream of trades.
Source: TypeAlias = Timeframe | Stream

# Streams that bars can be made from, the finest first.
TRADE_STREAMS: Final = (Stream.TRADES, Stream.AGG_TRADES)


class Target(NamedTuple):
    """One series to probe.

    source: what its bars come from. bars: about how many there are, before dates are cut.
    """

    instrument: Instrument
    timeframe: Timeframe
    source: Source
    bars: float


class Plan(msgspec.Struct, frozen=True):
    """A request that can be run. start_ns, stop_ns: bars that start in [start, stop); None is open."""

    run_id: str
    targets: list[Target]
    strategy_ids: list[int]
    risk_profiles: dict[str, RiskProfile]
    start_date: str | None
    end_date: str | None
    start_ns: TsNs | None
    stop_ns: TsNs | None
    persist_trades: bool

    @property
    def combinations(self) -> int:
        """Strategies x profiles x series."""
        return len(self.strategy_ids) * len(self.risk_profiles) * len(self.targets)

    def estimated_seconds(self, workers: int) -> int:
        """Say roughly how long it takes, at least 1."""
        bars = sum(target.bars for target in self.targets)
        per_series = len(self.strategy_ids) * len(self.risk_profiles)
        return max(1, round(bars * per_series * _SECONDS_PER_BAR_AND_COMBINATION / workers))


class ProbeJob(msgspec.Struct, frozen=True):
    """One series' share of a plan, as a worker gets it.

    combinations: (strategy id, risk profile) pairs still to be run. spool: file that takes the rows.
    """

    run_id: str
    instrument: Instrument
    timeframe: Timeframe
    source: Source
    start_ns: TsNs | None
    stop_ns: TsNs | None
    period: tuple[TsNs | None, TsNs | None]
    combinations: list[tuple[int, str]]
    risk_profiles: dict[str, RiskProfile]
    persist_trades: bool
    spool: str


def plan(request: ProbeRequest, bars: BarStore, book: RuleBook, profiles: Mapping[str, RiskProfile]) -> Plan:
    """Check a request against what is stored and configured.

    InvalidRequest or NotFound with the code of whatever is wrong first.
    """
    run_id = request.run_id if request.run_id is not None else uuid.uuid4().hex[:8]
    if not RUN_ID_PATTERN.fullmatch(run_id):
        raise InvalidRequest(
            Code.INVALID_RUN_ID, f"run id `{run_id}` may have letters, digits and ._- only, 1 to 50 of them"
        )
    timeframes = [parse_timeframe(name) for name in _listed(request.timeframes, "timeframes")]
    names = list(profiles) if request.risk_profiles is None else _listed(request.risk_profiles, "risk_profiles")
    chosen = {name: _profile(name, profiles) for name in names}
    ids = book.ids if request.strategy_ids is None else _listed(request.strategy_ids, "strategy_ids")
    for strategy_id in ids:
        book.get(strategy_id)
    start_ns, stop_ns = date_range(request.start_date, request.end_date)
    symbols = _listed(request.symbols, "symbols")
    instruments = list(dict.fromkeys(bars.resolve(symbol) for symbol in symbols))
    targets = []
    for instrument in instruments:
        stored, streams = bars.timeframes(instrument), bars.ticks.streams(instrument)
        for timeframe in timeframes:
            source = source_of(timeframe, [*stored, *streams], instrument)
            if not holds(bars, instrument, source, start_ns, stop_ns):
                what = source if isinstance(source, Stream) else f"{source} bars"
                raise NotFound(
                    Code.NO_BARS,
                    f"{instrument.key} has no {what} from {request.start_date or 'the first'} to "
                    f"{request.end_date or 'the last'}: `atlasd data symbols` shows what is stored",
                    {"symbol": instrument.key, "timeframe": timeframe},
                )
            targets.append(Target(instrument, timeframe, source, _bar_count(timeframe, source, stored, streams)))
    return Plan(
        run_id=run_id,
        targets=targets,
        strategy_ids=ids,
        risk_profiles=chosen,
        start_date=request.start_date,
        end_date=request.end_date,
        start_ns=start_ns,
        stop_ns=stop_ns,
        persist_trades=request.persist_trades,
    )


def parse_timeframe(name: str) -> Timeframe:
    """Return a timeframe by name; InvalidRequest INVALID_TIMEFRAME lists those there are."""
    try:
        return Timeframe(name)
    except ValueError:
        raise InvalidRequest(
            Code.INVALID_TIMEFRAME,
            f"timeframe `{name}` is not one of {', '.join(Timeframe)}",
            {"timeframe": name},
        ) from None


def date_range(start_date: str | None, end_date: str | None) -> tuple[TsNs | None, TsNs | None]:
    """Turn the first and last day into [start, stop) in ns; InvalidRequest INVALID_DATE_RANGE."""
    start = None if start_date is None else _day(start_date, "start_date")
    end = None if end_date is None else _day(end_date, "end_date")
    if start is not None and end is not None and start > end:
        raise InvalidRequest(
            Code.INVALID_DATE_RANGE, f"start {start_date} is after end {end_date}", {"field": "start_date"}
        )
    return (
        None if start is None else _midnight_ns(start),
        None if end is None else _midnight_ns(end) + NS_PER_DAY,
    )


def source_of(timeframe: Timeframe, stored: Iterable[Source], instrument: Instrument) -> Source:
    """Choose what a timeframe's bars come from: its own, else the longest stored that divide it, else trades."""
    stored = list(stored)
    if timeframe in stored:
        return timeframe
    dividing = [
        each
        for each in stored
        if isinstance(each, Timeframe) and each.ns < timeframe.ns and timeframe.ns % each.ns == 0
    ]
    if dividing:
        return max(dividing, key=lambda each: each.ns)
    trades = next((stream for stream in TRADE_STREAMS if stream in stored), None)
    if trades is not None:
        return trades
    have = ", ".join(each for each in Timeframe if each in stored) or "none"
    raise NotFound(
        Code.NO_BARS,
        f"{instrument.key} has no {timeframe} bars, and neither shorter ones nor trades to make them from "
        f"(stored: {have})",
        {"symbol": instrument.key, "timeframe": timeframe},
    )


def holds(bars: BarStore, instrument: Instrument, source: Source, start_ns: TsNs | None, stop_ns: TsNs | None) -> bool:
    """Tell whether a source has anything in [start_ns, stop_ns)."""
    if isinstance(source, Timeframe):
        return bars.holds(instrument, source, start_ns, stop_ns)
    return any(True for _ in bars.ticks.blocks(instrument, source, ("time_ns",), start_ns, stop_ns))


def _bar_count(
    timeframe: Timeframe, source: Source, stored: Mapping[Timeframe, Series], streams: Mapping[Stream, TickSeries]
) -> float:
    """Say about how many bars there will be."""
    if isinstance(source, Timeframe):
        return stored[source].rows * source.ns / timeframe.ns
    series = streams[source]
    return min(series.rows, (series.last_ns - series.first_ns) / timeframe.ns + 1)


def _profile(name: str, profiles: Mapping[str, RiskProfile]) -> RiskProfile:
    if name not in profiles:
        raise InvalidRequest(
            Code.INVALID_RISK_PROFILE,
            f"risk profile `{name}` is not one of {', '.join(profiles)}",
            {"risk_profile": name},
        )
    return profiles[name]


def _listed(values: Sequence[T], field: str) -> list[T]:
    if not values or len(values) > _MAX_SYMBOLS:
        raise InvalidRequest(Code.INVALID_REQUEST, f"`{field}` needs 1 to {_MAX_SYMBOLS} entries", {"field": field})
    return list(dict.fromkeys(values))


def _day(text: str, field: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:  # weeks and other spellings of ISO 8601
        why = "is not a day written as YYYY-MM-DD"
    elif not _FIRST_DAY <= day <= _LAST_DAY:
        why = f"is not between {_FIRST_DAY} and {_LAST_DAY}, which nanoseconds in 64 bits can tell"
    else:
        return day
    raise InvalidRequest(Code.INVALID_DATE_RANGE, f"{field} `{text}` {why}", {"field": field})


def _midnight_ns(day: date) -> TsNs:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(seconds=1) * NS_PER_SECOND


def no_depth(instrument: Instrument, where: str) -> NotFound:
    """Say that fills or slippage by the book have nothing to go by."""
    why = (
        f"{instrument.key} has {where}, which fills book and slippageModel order_book need: `atlasd import depth` or "
        "`atlasd record` stores it, `atlasd data symbols` shows of when; or choose other fills, or another model"
    )
    return NotFound(Code.NO_DEPTH, why, {"symbol": instrument.key})
