"""A symbol's own impact parameters: fitted on its stored trades, kept with their date, taken by backtests.

A parameter that is negative, or that its standard error does not tell from nothing, is kept as a finding but not used.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.core import backtest
from daemon.core.errors import Code, NotFound
from daemon.core.market import Timeframe
from daemon.core.ticks import Stream
from daemon.research.moments import time_range
from daemon.research.plans import TRADE_STREAMS, parse_timeframe
from daemon.store import documents

if TYPE_CHECKING:
    from daemon.core.backtest import Slippage
    from daemon.core.market import Instrument
    from daemon.engine.calibration import Buckets, Fit, Pushes
    from daemon.store.bars import BarStore
    from daemon.store.env import Transaction

LEAST_BUCKETS: Final = 100
"""Fewer buckets are no ground for a fit."""

_DOCUMENT: Final = "calibration"
_NS_PER_MS: Final = 1_000_000
_COLUMNS: Final = ("time_ns", "price", "size", "side")
# Of a normal estimate that is nothing, one in 20 is further off.
_SIGNIFICANT: Final = 1.96
# More volume without a side than this says little of who pushed.
_MOST_UNKNOWN: Final = 0.5

MODELS: Final[dict[str, type[Slippage]]] = {
    "square_root": backtest.SquareRoot,
    "almgren_2005": backtest.Almgren2005,
    "almgren_chriss": backtest.AlmgrenChriss,
    "kyle": backtest.Kyle,
}
"""The models that a calibration has parameters for."""


class CalibrationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to fit. bucket: a timeframe. start, end: as `moments.time_range` reads them, None for all there is."""

    symbol: str
    bucket: str = "5Min"
    start: str | None = None
    end: str | None = None


class Parameter(msgspec.Struct, frozen=True, rename="camel"):
    """One fit. is_used: whether backtests take it. note: why they do not, or in which unit it is."""

    model: str
    name: str
    value: float
    standard_error: float
    r2: float
    buckets: int
    is_used: bool
    note: str = ""


class Calibration(msgspec.Struct, frozen=True, rename="camel"):
    """A symbol's parameters.

    made_at, first, last: Unix ms; first and last start of the buckets. rows: trades that were read. buckets: those that
    could be fitted, of how much time each. unknown_percent: of the volume, whose aggressor nobody knows. turnover_days:
    what almgren_2005's gamma goes with, for nobody says how many units are out.
    """

    symbol: str
    made_at: int
    first: int
    last: int
    stream: str
    rows: int
    bucket: str
    buckets: int
    unknown_percent: float
    turnover_days: float
    parameters: list[Parameter]


def calibrate(bars: BarStore, request: CalibrationRequest) -> Calibration:
    """Fit a symbol's parameters on its stored trades and store them over those from before.

    InvalidRequest INVALID_TIMEFRAME, INVALID_DATE_RANGE, INVALID_SYMBOL or AMBIGUOUS_SYMBOL; NotFound NO_ROWS without
    trades, TOO_FEW_TRADES where they make too few buckets or do not say who the aggressor was.
    Memory: 56 bytes a bucket, whatever the trades.
    """
    from daemon.engine.calibration import pushes_of
    from daemon.research.backtest_market import year_days

    bucket = parse_timeframe(request.bucket)
    start_ns, stop_ns = time_range(request.start, request.end)
    instrument = bars.resolve(request.symbol)
    streams = bars.ticks.streams(instrument)
    stream = next((each for each in TRADE_STREAMS if each in streams), None)
    if stream is None:
        why = f"{instrument.key} has no stored trades to calibrate on: `atlasd import trades` or `atlasd fetch`"
        raise NotFound(Code.NO_ROWS, why, {"symbol": instrument.key})
    rows, buckets = _buckets(bars, instrument, stream, bucket, start_ns, stop_ns)
    days = year_days(buckets.start_ns) if buckets.start_ns.size else 365
    pushes = pushes_of(buckets, bucket.ns, days)
    unknown = float(buckets.unknown.sum() / max(buckets.volume.sum(), 1e-300))
    _check(instrument, bucket, pushes.share.size, unknown)
    made = Calibration(
        symbol=instrument.key,
        made_at=time.time_ns() // _NS_PER_MS,
        first=int(buckets.start_ns[0]) // _NS_PER_MS,
        last=int(buckets.start_ns[-1]) // _NS_PER_MS,
        stream=stream,
        rows=rows,
        bucket=bucket,
        buckets=pushes.share.size,
        unknown_percent=100 * unknown,
        turnover_days=backtest.Almgren2005().turnover_days,
        parameters=_fitted(pushes),
    )
    bars.ticks.env.write(lambda transaction: documents.put(transaction, _DOCUMENT, instrument.key, made))
    return made


def calibration_of(transaction: Transaction, instrument: Instrument) -> Calibration | None:
    """Read a symbol's calibration, None where it has none."""
    return documents.get(transaction, _DOCUMENT, instrument.key, Calibration)


def stored_calibration(bars: BarStore, symbol: str) -> Calibration:
    """Read the calibration of a symbol as users name it; NotFound CALIBRATION_NOT_FOUND where it has none."""
    instrument = bars.resolve(symbol)
    with bars.ticks.env.read() as transaction:
        found = calibration_of(transaction, instrument)
    if found is None:
        why = f"{instrument.key} has not been calibrated: `atlasd calibrate {instrument.key}`"
        raise NotFound(Code.CALIBRATION_NOT_FOUND, why, {"symbol": instrument.key})
    return found


def model_of(calibration: Calibration, model: str) -> Slippage | None:
    """Return a model with the parameters that were fitted, its defaults for the others; None without any of its own."""
    own = {each.name: each.value for each in calibration.parameters if each.is_used and each.model == model}
    made: Slippage | None = msgspec.convert({"model": model, **own}, MODELS[model]) if own else None
    return made


def spoken(calibration: Calibration, model: str) -> str:
    """Say of when and on what the parameters of a model are, and which of them are left at their defaults."""
    fits = [each for each in calibration.parameters if each.model == model and each.name in _names(model)]
    own = ", ".join(f"{each.name} {each.value:.4g} (se {each.standard_error:.2g})" for each in fits if each.is_used)
    rest = "; ".join(f"{each.name} keeps its default: {each.note}" for each in fits if not each.is_used)
    made, first, last = (_day(at) for at in (calibration.made_at, calibration.first, calibration.last))
    ground = f"calibrated on {made} on {calibration.buckets:,} buckets of {calibration.bucket}, {first} to {last}"
    return f"{own or 'defaults'}, {ground}{f'; {rest}' if rest else ''}"


# Fitting.


def _buckets(
    bars: BarStore, instrument: Instrument, stream: Stream, bucket: Timeframe, start_ns: int | None, stop_ns: int | None
) -> tuple[int, Buckets]:
    from daemon.engine.calibration import TradeBuckets

    sums = TradeBuckets(bucket.ns)
    for columns in bars.ticks.scan(instrument, stream, _COLUMNS, start_ns, stop_ns):
        sums.feed(*columns)
    return sums.rows, sums.finish()


def _check(instrument: Instrument, bucket: Timeframe, usable: int, unknown: float) -> None:
    details: dict[str, Any] = {"symbol": instrument.key, "buckets": usable, "least": LEAST_BUCKETS}
    if usable < LEAST_BUCKETS:
        raise NotFound(
            Code.TOO_FEW_TRADES,
            f"the trades of {instrument.key} make {usable} buckets of {bucket} that follow another and know a daily "
            f"volatility, at least {LEAST_BUCKETS} are needed: import more trades, or take shorter buckets",
            details,
        )
    if unknown > _MOST_UNKNOWN:
        raise NotFound(
            Code.TOO_FEW_TRADES,
            f"{100 * unknown:.0f} % of the volume of {instrument.key} does not say who the aggressor was: import "
            "trades that have a side",
            details,
        )


def _fitted(pushes: Pushes) -> list[Parameter]:
    from daemon.engine import calibration as fits

    turnover_days = backtest.Almgren2005().turnover_days
    found: list[tuple[str, str, Fit]] = [
        ("square_root", "y", fits.square_root_y(pushes)),
        ("almgren_2005", "gamma", fits.almgren_2005_gamma(pushes, turnover_days)),
        ("almgren_2005", "eta", fits.almgren_2005_eta(pushes)),
        ("almgren_chriss", "gamma", fits.almgren_chriss_gamma(pushes)),
        ("almgren_chriss", "eta", fits.almgren_chriss_eta(pushes)),
        ("kyle", "y", fits.kyle_y(pushes)),
        ("kyle", "lambda", fits.kyle_lambda(pushes)),
    ]
    return [_parameter(*each) for each in found]


def _parameter(model: str, name: str, fit: Fit) -> Parameter:
    note, is_used = "", True
    if fit.value <= 0:
        note, is_used = "the fit is not above 0, which no impact is", False
    elif fit.value < _SIGNIFICANT * fit.standard_error:
        note, is_used = f"not told from 0: {fit.value / fit.standard_error:.1f} standard errors", False
    if name not in _names(model):
        note, is_used = f"quote currency a base unit, for comparison: y is what is used{note and f'; {note}'}", False
    return Parameter(model, name, fit.value, fit.standard_error, fit.r2, fit.rows, is_used, note)


def _names(model: str) -> tuple[str, ...]:
    return MODELS[model].__struct_fields__


def _day(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d}"
