"""Stored series as NumPy columns: whole or block by block, and the engine's indicator columns beside them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from daemon.core.backtest import BacktestSpec, Costs, Rules
from daemon.core.backtest import Market as Traded
from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import Kind, Stream
from daemon.engine.columns import NAMES, canonical, lookback
from daemon.research.backtest_config.settings import TIMEFRAMES
from daemon.research.history import History, Query
from daemon.research.moments import time_range
from daemon.research.plans import parse_timeframe, source_of
from daemon.store.codec import to_floats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.research.history import Block
    from daemon.research.plans import Source
    from daemon.store.bars import BarStore

Columns: TypeAlias = dict[str, NDArray[Any]]
"""Equally long columns by name: times and ids int64 (ns UTC), prices and sizes float64, sides int8."""

Moment: TypeAlias = str | int | date | datetime | np.datetime64
"""A time as scripts have it. Texts are as of `moments.time_range`, whole numbers are ns as columns have them; a day as
an end is meant whole, a datetime without a zone is UTC."""

_NO_TIME: Final = "NaT"
# Beyond what 64 bits hold, and NumPy's number for no time.
_PAST_NS: Final = 2**63
_TYPES: Final = {Kind.TIME: np.int64, Kind.ID: np.int64, Kind.CODE: np.int8}


def read_blocks(
    bars: BarStore,
    symbol: str,
    series: str,
    start: Moment | None,
    end: Moment | None,
    names: Sequence[str] | None,
) -> tuple[dict[str, np.dtype[Any]], Iterator[Columns]]:
    """Open a walk over a series; returns the columns' types, and the walk. Errors as of `History`, before it begins.

    series: a stream of ticks, a timeframe, or `volume:N` and `notional:N`. names: columns, None for all; InvalidRequest
    INVALID_REQUEST for one that the series has not.
    """
    names, series = _listed(names), str(series)
    is_ticks = series in {each for each in Stream if each is not Stream.BARS}
    history = History(
        bars,
        Query(
            symbol=str(symbol),
            stream=series if is_ticks else Stream.BARS,
            timeframe=None if is_ticks else TIMEFRAMES.get(series, series),
            start=_text(start),
            end=_text(end),
        ),
    )
    for name in names or ():
        if name not in history.kinds:
            raise _unknown(name, history.kinds, f"{history.instrument.key} {series}")
    kinds = {name: history.kinds[name] for name in names or history.kinds}
    types = {name: np.dtype(_TYPES.get(kind, np.float64)) for name, kind in kinds.items()}
    return types, (_plain(block, kinds) for block in history.blocks() if block.size)


def read_columns(types: dict[str, np.dtype[Any]], blocks: Iterable[Columns]) -> Columns:
    """Put a walk's blocks together."""
    found = list(blocks)
    if not found:
        return {name: np.empty(0, dtype=kind) for name, kind in types.items()}
    return {name: np.concatenate([block[name] for block in found]) for name in types}


def read_indicators(
    bars: BarStore, symbol: str, timeframe: str, names: Sequence[str], start: Moment | None, end: Moment | None
) -> Columns:
    """Compute columns of the engine's over bars, as a backtest of these dates has them, warm-up included.

    Returns `timestamp` and the names, (n,) int64 and float64; NaN in rows before a column's first window.
    InvalidRequest INVALID_REQUEST for a name that is no column, INVALID_TIMEFRAME or INVALID_DATE_RANGE; NotFound
    NO_BARS.
    """
    from daemon.engine.indicators import IndicatorColumns
    from daemon.research.backtest_market import read_series

    names = _listed(names) or ()
    for name in names:
        if canonical(name) is None:
            raise _unknown(name, NAMES, "the engine, whose rsi_14, ema_9 or bb_upper_20_2p5 take any length")
    instrument = bars.resolve(str(symbol))
    width = TIMEFRAMES.get(timeframe) or parse_timeframe(timeframe)
    stored: list[Source] = [*bars.timeframes(instrument), *bars.ticks.streams(instrument)]
    start_ns, stop_ns = time_range(_text(start), _text(end))
    market = Traded(instrument, source_of(width, stored, instrument))
    spec = BacktestSpec(
        name="",
        markets=(market,),
        timeframe=width,
        start_ns=start_ns,
        stop_ns=stop_ns,
        program=Rules(),
        costs=Costs(maker_rate=0.0, taker_rate=0.0),
    )
    warmup = 1 + max((lookback(name, bar_ns=width.ns) for name in names), default=0)
    series = read_series(bars, spec, market, warmup)
    columns = IndicatorColumns(series.whole)
    # Copies: a script that writes into its columns changes nobody else's.
    made: Columns = {name: np.array(columns[name][series.warmup :], dtype=np.float64) for name in names}
    return {"timestamp": series.bars.start_ns.copy(), **made}


def _plain(block: Block, kinds: dict[str, Kind]) -> Columns:
    made: Columns = {}
    for name, kind in kinds.items():
        column = block.columns[name]
        decimals = block.decimals(kind) if kind in (Kind.PRICE, Kind.SIZE) else None
        made[name] = column if decimals is None else to_floats(column, decimals)
    return made


def _listed(names: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return names that any iterable gives; a text alone would be taken for its letters."""
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        why = f"names is `{names}`, not a list of columns: write [{str(names)!r}]"
        raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "names"})
    return tuple(str(each) for each in names)


def _text(moment: Moment | None) -> str | None:
    """Write a time as `moments.time_range` reads it; what is none it refuses, in its own words."""
    match moment:
        case None | str():
            return moment
        case datetime() if str(moment) != _NO_TIME:
            zoned = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            # Of pandas' times, which have them.
            nanoseconds = int(getattr(moment, "nanosecond", 0))
            return f"{zoned:%Y-%m-%dT%H:%M:%S.%f}{nanoseconds:03d}Z"
        case np.datetime64() if not np.isnat(moment):
            exact = moment.astype("datetime64[ns]")
            # Years that nanoseconds cannot tell come back as others.
            is_told = exact.astype("datetime64[Y]") == moment.astype("datetime64[Y]")
            return f"{np.datetime_as_string(exact if is_told else moment.astype('datetime64[s]'))}Z"
        case _:
            return _text_of_number(moment)


def _text_of_number(moment: Any) -> str:
    """Write ns; a date, and whatever is no time, is written as it is."""
    is_number = isinstance(moment, int | float | np.integer | np.floating) and not isinstance(moment, bool)
    if is_number and abs(moment) < _PAST_NS:
        return f"{np.datetime_as_string(np.datetime64(int(moment), 'ns'))}Z"
    return str(moment)


def _unknown(name: str, known: Iterable[str], where: str) -> InvalidRequest:
    known = sorted(known)
    near = get_close_matches(name, known, 3)
    these = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known[:20])}"
    return InvalidRequest(Code.INVALID_REQUEST, f"`{name}` is no column of {where}: {these}", {"field": "names"})
