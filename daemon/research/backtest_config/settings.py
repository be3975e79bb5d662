"""The `backtest` part of a configuration: markets, dates, money, costs, and what fills are made against.

Costs are on unless they are switched off, and each default that was taken is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from daemon.core import backtest as spec
from daemon.core.backtest import Account, Costs, Funding, Market, Slippage
from daemon.core.errors import AtlasError, Code, NotFound
from daemon.core.execution import Queue
from daemon.core.market import Timeframe
from daemon.core.ticks import Stream
from daemon.research.backtest_config.fields import (
    Fields,
    Limits,
    at_field,
    choice,
    items,
    names_of,
    read_struct,
    refused,
    shown,
    span,
    spoken_moment,
    text,
)
from daemon.research.calibration import MODELS, calibration_of, model_of, spoken
from daemon.research.plans import TRADE_STREAMS, holds, no_depth, source_of

if TYPE_CHECKING:
    from daemon.core.market import Instrument, TsNs
    from daemon.core.ports import InstrumentFacts
    from daemon.store.bars import BarStore

SLIPPAGES: Final[dict[str, Any]] = {
    "none": spec.NoSlippage,
    "fixed_bps": spec.FixedBps,
    "volume_weighted": spec.VolumeWeighted,
    "square_root": spec.SquareRoot,
    "almgren_2005": spec.Almgren2005,
    "almgren_chriss": spec.AlmgrenChriss,
    "kyle": spec.Kyle,
    "order_book": spec.OrderBook,
}
BACKTEST_FIELDS: Final = (
    "startDate", "endDate", "symbols", "timeframe", "initialCapital", "commission", "makerFee", "takerFee", "fixedFee",
    "slippageModel", "slippage", "slippageBps", "leverage", "maintenanceMargin", "liquidationFee", "fundingRate",
    "fundingInterval", "funding", "fills", "queue", "limitFills", "latencyMs", "maxPositions", "maxPositionSize",
    "tickSize", "lotSize", "minNotional", "instruments", "calendar", "stressTestMultiplier", "sizing",
)  # fmt: skip
INSTRUMENT_FIELDS: Final = ("tickSize", "lotSize", "minNotional")
COMMISSION: Final = 0.001
"""What a fill costs where nothing is said: a fraction of its worth, as spot venues ask of small accounts."""

TIMEFRAMES: Final = {
    **{str(timeframe): timeframe for timeframe in Timeframe},
    "1s": Timeframe.SEC_1,
    "1m": Timeframe.MIN_1,
    "5m": Timeframe.MIN_5,
    "15m": Timeframe.MIN_15,
    "1h": Timeframe.HOUR_1,
    "1d": Timeframe.DAY_1,
}
CALENDARS: Final[dict[str, Literal[252, 365]]] = {"365": 365, "252": 252, "crypto": 365, "equity": 252}
FILLS: Final = ("bars", "ticks", "book")
LIMIT_FILLS: Final = ("touch", "through")
_MOST_SYMBOLS: Final = 1_000


class Period(NamedTuple):
    """Bars that start in [start_ns, stop_ns); None is open."""

    start_ns: TsNs | None
    stop_ns: TsNs | None


def read_period(fields: Fields, readings: list[str]) -> Period:
    """Read the dates."""
    start, end = fields.raw("startDate"), fields.raw("endDate")
    period = Period(*span(start, fields.at("startDate"), end, fields.at("endDate")))
    first = "the first bar" if period.start_ns is None else spoken_moment(period.start_ns)
    last = "the last" if period.stop_ns is None else spoken_moment(period.stop_ns)
    is_day = isinstance(end, str) and len(end) == len("2024-01-31") and "-" in end
    readings.append(f"Bars from {first} to {last} UTC{', the last day included' if is_day else ''}.")
    return period


def read_fills(fields: Fields) -> tuple[Literal["bars", "ticks", "book"], Literal["touch", "through"]]:
    """Read what fills are made against, and whether a touched limit order is filled."""
    fills = fields.choice("fills", FILLS) or "bars"
    if fills == "book":
        if "limitFills" in fields:
            why = 'does not go with "fills": "book": a resting order fills as its queue does (backtest.queue)'
            raise refused(fields.at("limitFills"), why)
        return "book", "through"
    limit_fills = fields.choice("limitFills", LIMIT_FILLS) or ("touch" if fills == "bars" else "through")
    return "ticks" if fills == "ticks" else "bars", "through" if limit_fills == "through" else "touch"


def read_queue(fields: Fields, fills: str) -> Queue:
    """Read how resting orders stand in a book's queues."""
    if "queue" not in fields:
        return Queue()
    path = fields.at("queue")
    if fills != "book":
        raise refused(path, f'goes with "fills": "book", it is "{fills}"')
    given = fields.raw("queue")
    queue: Queue = read_struct(Queue, {"model": given} if isinstance(given, str) else given, path)
    if isinstance(given, dict) and given.get("exponent") is not None and queue.model != "power":
        raise refused(f"{path}.exponent", f"is for the model power, it is {queue.model}")
    return queue


# Markets.


def read_markets(
    fields: Fields, bars: BarStore, period: Period, fills: str, readings: list[str]
) -> tuple[tuple[Market, ...], Timeframe]:
    """Resolve the symbols, choose what their bars come from, and take their steps from the user or the venue."""
    instruments = _instruments(fields, bars)
    timeframe = _timeframe(fields, bars, instruments, readings)
    given = _given_steps(fields, bars, instruments)
    common = {name: fields.number(name, Limits(least=0)) for name in INSTRUMENT_FIELDS}
    markets = []
    for instrument, path in instruments.items():
        source = _source(bars, instrument, timeframe, fills, path)
        if not holds(bars, instrument, source, *period):
            what = source if isinstance(source, Stream) else f"{source} bars"
            why = f"{instrument.key} has no {what} in these dates: `atlasd data symbols` shows what is stored"
            raise at_field(NotFound(Code.NO_BARS, why), path)
        steps = _steps(common | given.get(instrument, {}), bars.facts(instrument), instrument, readings)
        unit = bars.volume_unit(instrument, source)
        if unit == "quote":
            readings.append(f"Volumes of {instrument.key} count quote currency.")
        if source is not timeframe:
            readings.append(f"{timeframe} bars of {instrument.key} are made from its {_spoken(source)}.")
        market = Market(
            instrument=instrument,
            source=source,
            tick_size=steps["tickSize"],
            lot_size=steps["lotSize"],
            min_notional=steps["minNotional"],
            volume_unit=unit,
        )
        markets.append(market)
    return tuple(markets), timeframe


def _instruments(fields: Fields, bars: BarStore) -> dict[Instrument, str]:
    """Resolve the symbols; returns each instrument once, and the path of the field that named it."""
    given = fields.needed("symbols", "a list of stored symbols, such as BTC/USDT")
    path = fields.at("symbols")
    listed = [(given, path)] if isinstance(given, str) else items(given, path, _MOST_SYMBOLS)
    found: dict[Instrument, str] = {}
    for symbol, where in listed:
        try:
            instrument = bars.resolve(text(symbol, where))
        except AtlasError as error:
            if error.code is Code.INVALID_CONFIGURATION:
                raise
            raise at_field(error, where) from None
        found.setdefault(instrument, where)
    return found


def _timeframe(fields: Fields, bars: BarStore, instruments: dict[Instrument, str], readings: list[str]) -> Timeframe:
    if "timeframe" in fields:
        name = choice(fields.raw("timeframe"), fields.at("timeframe"), list(TIMEFRAMES), Code.INVALID_TIMEFRAME)
        return TIMEFRAMES[name]
    finest = [min(stored, key=lambda each: each.ns) for each in instruments if (stored := bars.timeframes(each))]
    chosen = max(finest, key=lambda each: each.ns, default=Timeframe.MIN_1)
    why = "the finest stored one common to all symbols" if finest else "made from trades"
    readings.append(f"timeframe is not given: {chosen}, {why}.")
    return chosen


def _source(bars: BarStore, instrument: Instrument, timeframe: Timeframe, fills: str, path: str) -> Timeframe | Stream:
    streams = bars.ticks.streams(instrument)
    if fills == "book" and Stream.DEPTH not in streams:
        why = f'{instrument.key} has no stored depth, which "fills": "book" needs: `atlasd import depth FILE`'
        raise at_field(NotFound(Code.NO_ROWS, f"{why}, or fill on bars"), path)
    if fills != "bars":
        trades = next((stream for stream in TRADE_STREAMS if stream in streams), None)
        if trades is None:
            how = "`atlasd import trades FILE`" if fills == "book" else "import them"
            why = f'{instrument.key} has no stored trades, which "fills": "{fills}" needs: {how}, or fill on bars'
            raise at_field(NotFound(Code.NO_ROWS, why), path)
        return trades
    try:
        return source_of(timeframe, [*bars.timeframes(instrument), *streams], instrument)
    except NotFound as error:
        raise at_field(error, path) from None


def _given_steps(
    fields: Fields, bars: BarStore, instruments: dict[Instrument, str]
) -> dict[Instrument, dict[str, float | None]]:
    """Read the steps that the user gives of single symbols."""
    by_symbol = fields.raw("instruments")
    path = fields.at("instruments")
    if by_symbol is None:
        return {}
    if not isinstance(by_symbol, dict):
        raise refused(path, f'is {shown(by_symbol)}, not an object such as {{"BTC/USDT": {{"tickSize": 0.1}}}}')
    found: dict[Instrument, dict[str, float | None]] = {}
    for symbol, given in by_symbol.items():
        where = f"{path}.{symbol}"
        try:
            instrument = bars.resolve(symbol)
        except AtlasError as error:
            raise at_field(error, where) from None
        if instrument not in instruments:
            raise refused(where, "is none of backtest.symbols", Code.INVALID_SYMBOL)
        own = Fields(given, where, INSTRUMENT_FIELDS)
        steps = {name: own.number(name, Limits(least=0)) for name in INSTRUMENT_FIELDS}
        found[instrument] = {name: step for name, step in steps.items() if step is not None}
    return found


def _steps(
    given: dict[str, float | None], facts: InstrumentFacts | None, instrument: Instrument, readings: list[str]
) -> dict[str, float]:
    said = (
        {}
        if facts is None
        else dict(zip(INSTRUMENT_FIELDS, (facts.tick_size, facts.step_size, facts.min_notional), strict=True))
    )
    taken = {name: float(said[name]) for name in INSTRUMENT_FIELDS if given.get(name) is None and said.get(name)}
    if taken:
        listed = ", ".join(f"{name} {step:.12g}" for name, step in taken.items())
        readings.append(f"{instrument.key}: {listed}, as the venue says.")
    return {name: given.get(name) or taken.get(name, 0.0) for name in INSTRUMENT_FIELDS}


def _spoken(source: Timeframe | Stream) -> str:
    return source.replace("_", " ") if isinstance(source, Stream) else f"{source} bars"


# Money and costs.


def read_costs(fields: Fields, readings: list[str], fills: str = "bars") -> Costs:
    """Read fees and slippage; on by default. Orders that take from a book pay what its levels say, and no model's."""
    fields.only_one("commission", "makerFee")
    fields.only_one("commission", "takerFee")
    commission = fields.of(Costs, "taker_rate", "commission") if "commission" in fields else COMMISSION
    for name, other in (("makerFee", "takerFee"), ("takerFee", "makerFee")):
        if "commission" not in fields and name not in fields:
            of = f"{name[:5]} fills" if other in fields else "each fill"
            sentence = f"commission is not given: {COMMISSION * 100:g} % of {of}."
            readings.extend([] if sentence in readings else [sentence])
    return Costs(
        maker_rate=fields.of(Costs, "maker_rate", "makerFee") if "makerFee" in fields else commission,
        taker_rate=fields.of(Costs, "taker_rate", "takerFee") if "takerFee" in fields else commission,
        fixed_fee=fields.of(Costs, "fixed_fee"),
        slippage=_slippage(fields, readings) if fills != "book" else _without_slippage(fields),
        scale=fields.of(Costs, "scale", "stressTestMultiplier"),
    )


def _without_slippage(fields: Fields) -> Slippage:
    for name in ("slippageModel", "slippage", "slippageBps"):
        if name in fields:
            why = 'does not go with "fills": "book": orders take the book\'s own levels, one by one'
            raise refused(fields.at(name), why)
    return spec.NoSlippage()


def _slippage(fields: Fields, readings: list[str]) -> Slippage:
    model = fields.choice("slippageModel", list(SLIPPAGES))
    if "slippageBps" in fields:
        if model not in (None, "fixed_bps"):
            raise refused(fields.at("slippageBps"), f"is for fixed_bps, slippageModel is {model}")
        fields.only_one("slippageBps", "slippage")
        return spec.FixedBps(fields.of(spec.FixedBps, "bps", "slippageBps"))
    if model is None:
        model = "volume_weighted"
        readings.append("slippageModel is not given: volume_weighted.")
    parameters = fields.raw("slippage") if "slippage" in fields else {}
    slippage: Slippage = read_struct(SLIPPAGES[model], parameters, fields.at("slippage"))
    return slippage


def with_calibrations(
    fields: Fields, markets: tuple[Market, ...], bars: BarStore, readings: list[str]
) -> tuple[Market, ...]:
    """Give each market the parameters that were fitted on its own trades, unless the user gives the model's."""
    model = fields.raw("slippageModel")
    if model not in MODELS or "slippage" in fields:
        return markets
    with bars.ticks.env.read() as transaction:
        calibrations = [calibration_of(transaction, market.instrument) for market in markets]
    own = []
    for market, calibration in zip(markets, calibrations, strict=True):
        key = market.instrument.key
        if calibration is None:
            readings.append(f"{key} has not been calibrated: {model} with its defaults (`atlasd calibrate {key}`).")
        else:
            readings.append(f"{model} of {key}: {spoken(calibration, model)}.")
        slippage = None if calibration is None else model_of(calibration, model)
        own.append(msgspec.structs.replace(market, slippage=slippage))
    return tuple(own)


def check_books(fields: Fields, markets: tuple[Market, ...], slippage: Slippage, fills: str, bars: BarStore) -> None:
    """Refuse slippage by the book where orders meet trades, which carry its costs, or where no depth is stored."""
    if not isinstance(slippage, spec.OrderBook):
        return
    path = fields.at("slippageModel")
    if fills == "ticks":
        raise refused(path, 'is order_book, which is for "fills": "bars": trades are prices that somebody paid')
    for market in markets:
        if Stream.DEPTH not in bars.ticks.streams(market.instrument):
            raise at_field(no_depth(market.instrument, "no stored depth"), path)


def read_account(fields: Fields, readings: list[str]) -> Account:
    """Read money and its limits."""
    account = Account(
        initial_capital=fields.of(Account, "initial_capital"),
        leverage=fields.of(Account, "leverage"),
        maintenance_margin=fields.of(Account, "maintenance_margin"),
        liquidation_rate=fields.of(Account, "liquidation_rate", "liquidationFee"),
        max_positions=fields.of(Account, "max_positions"),
        max_position_notional=fields.of(Account, "max_position_notional", "maxPositionSize"),
    )
    if account.leverage * account.maintenance_margin >= 1:
        why = f"is {account.leverage:g}: {1 / account.leverage:.2%} of margin is liquidated at once, as"
        raise refused(fields.at("leverage"), f"{why} maintenanceMargin is {account.maintenance_margin:.2%}")
    if "initialCapital" not in fields:
        readings.append(f"initialCapital is not given: {account.initial_capital:,.0f} of quote currency.")
    return account


def read_funding(fields: Fields, readings: list[str]) -> Funding:
    """Read what perpetuals pay: a constant rate, an imported series, or nothing."""
    source = fields.choice("funding", ("none", "constant", "series"))
    rate = fields.number("fundingRate", Limits(least=-1, most=1))
    if source is None:
        source = "none" if rate is None else "constant"
        if rate is None:
            readings.append("No funding is paid.")
    if (source == "constant") != (rate is not None):
        raise refused(fields.at("fundingRate"), f'goes with "funding": "constant", it is "{source}"')
    if source != "constant" and "fundingInterval" in fields:
        raise refused(fields.at("fundingInterval"), "goes with fundingRate: hours between payments")
    hours = fields.of(Funding, "interval_hours", "fundingInterval")
    return Funding(source, rate or 0.0, hours)  # type: ignore[arg-type]


def read_calendar(fields: Fields) -> Literal[252, 365] | None:
    """Read how many days a year has; None to judge by the data."""
    given = fields.raw("calendar")
    if given is None:
        return None
    name = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    return CALENDARS[choice(name, fields.at("calendar"), list(CALENDARS))]


def slippage_names() -> list[str]:
    """Return the parameters of all models."""
    return list(dict.fromkeys(name for struct in SLIPPAGES.values() for name in names_of(struct)))
