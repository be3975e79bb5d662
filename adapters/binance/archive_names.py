"""What the name of an archive file tells: `BTCUSDT-trades-2024-08-09.zip`, `BTCUSD_PERP-1m-2024-08.zip`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from adapters.shared.refusals import Place, refusal, shown
from daemon.core.errors import Code
from daemon.core.market import NS_PER_SECOND, Timeframe
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from daemon.core.market import TsNs

TIMEFRAMES: Final = {
    "1s": Timeframe.SEC_1,
    "1m": Timeframe.MIN_1,
    "5m": Timeframe.MIN_5,
    "15m": Timeframe.MIN_15,
    "1h": Timeframe.HOUR_1,
    "1d": Timeframe.DAY_1,
}
STREAMS: Final = {"trades": Stream.TRADES, "aggTrades": Stream.AGG_TRADES, "klines": Stream.BARS}

_DECEMBER = 12
# Browsers number a second download: "BTCUSDT-trades-2024-08-09 (1).zip".
_NAME = re.compile(
    r"(?P<symbol>[A-Z0-9_]{2,32})-(?P<what>[A-Za-z0-9]+)"
    r"(?:-(?P<year>20\d\d)-(?P<month>0[1-9]|1[0-2])(?:-(?P<day>[0-3]\d))?)?(?: \(\d+\))?",
    re.ASCII,
)
_INTERVAL = re.compile(r"\d+(?:s|m|h|d|w|mo|M)", re.ASCII)


class ArchiveName(NamedTuple):
    """What a name tells.

    kind: "trades", "aggTrades" or "klines". timeframe: of klines, else None.
    start_ns, stop_ns: the day or month, UTC, half-open; None where the name has no date.
    """

    symbol: str
    kind: str
    timeframe: Timeframe | None
    start_ns: TsNs | None
    stop_ns: TsNs | None


def read_name(stem: str, file: str) -> ArchiveName | None:
    """Read a name without its ending; None where it is no archive file's name at all.

    SourceDataInvalid SOURCE_UNREADABLE for kinds of files and intervals that are not read, and days that are none.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    what = match["what"]
    timeframe = None
    if _INTERVAL.fullmatch(what):
        timeframe = TIMEFRAMES.get(what)
        if timeframe is None:
            why = f"klines of {what} are not stored, only {', '.join(TIMEFRAMES)}; take a shorter interval"
            raise refusal(Code.SOURCE_UNREADABLE, Place(file), f"{why} and longer bars are derived from it")
        what = "klines"
    if what not in STREAMS:
        why = f"{shown(what)} is not a kind of file that is read; take trades, aggTrades or klines"
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), why)
    if match["year"] is None:
        return ArchiveName(match["symbol"], what, timeframe, None, None)
    return ArchiveName(match["symbol"], what, timeframe, *_span(match, file))


def agree(one: ArchiveName, other: ArchiveName) -> bool:
    """Tell whether two names can be of one file; a name without a date agrees with any."""
    dated = one.start_ns is not None and other.start_ns is not None
    return one[:3] == other[:3] and (not dated or one == other)


def _span(match: re.Match[str], file: str) -> tuple[TsNs, TsNs]:
    year, month = int(match["year"]), int(match["month"])
    if match["day"] is None:
        after = (year + month // _DECEMBER, month % _DECEMBER + 1)
        return _midnight(year, month, 1), _midnight(*after, 1)
    try:
        start_ns = _midnight(year, month, int(match["day"]))
    except ValueError:
        why = (
            f"its name holds a day that is none: {match['year']}-{match['month']}-{match['day']}; name it as published"
        )
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), why) from None
    return start_ns, start_ns + Timeframe.DAY_1.ns


def _midnight(year: int, month: int, day: int) -> TsNs:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * NS_PER_SECOND
