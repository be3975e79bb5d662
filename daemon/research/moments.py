"""Times as users write them: days, dates with a clock, Unix milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, TsNs

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_MS: Final = 1_000_000
_MILLISECONDS: Final = re.compile(r"-?\d{1,15}", re.ASCII)
# Fewer milliseconds than these are in 1973 or before: much likelier seconds, or a day without dashes.
_LEAST_MS: Final = 100_000_000_000
_WRITTEN: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)
# What 64 bits of nanoseconds can tell, to the whole year.
_FIRST_YEAR, _LAST_YEAR = 1678, 2261


def time_range(start: str | None, end: str | None) -> tuple[TsNs | None, TsNs | None]:
    """Turn two texts into [start, stop) in ns; None is open.

    A text is a day (the range ends behind that of `end`), a day and a clock (UTC unless it names an offset) or Unix
    milliseconds. InvalidRequest INVALID_DATE_RANGE for anything else, and where nothing could lie between them.
    """
    start_ns = None if start is None else _moment(start, "start")[0]
    stop_ns = None if end is None else sum(_moment(end, "end"))
    if start_ns is not None and stop_ns is not None and start_ns >= stop_ns:
        raise InvalidRequest(
            Code.INVALID_DATE_RANGE, f"start {start} is not before end {end}: nothing lies between", {"field": "start"}
        )
    return start_ns, stop_ns


def _moment(text: str, field: str) -> tuple[TsNs, int]:
    """Return a time and how long it lasts, ns: a day for a day, nothing for a moment."""
    if _MILLISECONDS.fullmatch(text):
        number = int(text)
        if number and abs(number) < _LEAST_MS:
            raise _refusal(text, field, "would be Unix milliseconds of before 1974: write 2024-01-31 for a day")
        return _within(number * _NS_PER_MS, text, field), 0
    written = _WRITTEN.fullmatch(text)
    if written is None:
        why = "is no time: write 2024-01-31, 2024-01-31T14:30:00Z or Unix milliseconds (in a URL a + is %2B)"
        raise _refusal(text, field, why)
    day, minute, second, fraction, zone = written.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{zone or 'Z'}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        raise _refusal(text, field, "is not in the calendar") from None
    whole_ns = since // timedelta(seconds=1) * NS_PER_SECOND + int((fraction or "").ljust(9, "0"))
    return _within(whole_ns, text, field), 0 if minute else NS_PER_DAY


def _within(time_ns: TsNs, text: str, field: str) -> TsNs:
    if not _JANUARY[0] <= time_ns < _JANUARY[1]:
        raise _refusal(text, field, f"is not between {_FIRST_YEAR} and {_LAST_YEAR}, which 64 bits of ns can tell")
    return time_ns


def _refusal(text: str, field: str, why: str) -> InvalidRequest:
    return InvalidRequest(Code.INVALID_DATE_RANGE, f"{field} `{text[:40]}` {why}", {"field": field})


_JANUARY: Final = tuple(
    (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * NS_PER_SECOND
    for year in (_FIRST_YEAR, _LAST_YEAR + 1)
)
