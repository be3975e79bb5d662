"""Numbers and times as the reports of a backtest write them, whichever kind of file they are."""

from __future__ import annotations

from typing import Final

from daemon.research.plotly_page import DASH, signed, spoken_duration, spoken_time

_NS_PER_MS: Final = 1_000_000
_MS_PER_SECOND: Final = 1_000
_CENTS_BELOW: Final = 100_000


def percent(value: float | None, digits: int = 2) -> str:
    """Write `+1.25 %`; a dash for None."""
    return DASH if value is None else f"{signed(value, digits)} %"


def share(fraction: float | None, digits: int = 1) -> str:
    """Write a fraction or a chance as percent, without a sign for what is positive: `12.5 %`."""
    return DASH if fraction is None else f"{plain(100 * fraction, digits)} %"


def plain(value: float | None, digits: int = 2) -> str:
    """Write `1,234.50`; a dash for None."""
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def figure(value: float | None, digits: int = 4) -> str:
    """Write a number of any size, `digits` of it: `0.05`, `1,204`."""
    return DASH if value is None else f"{value:,.{digits}g}".replace("-", "\N{MINUS SIGN}")


def number(value: int | float | None) -> str:  # noqa: PYI041
    """Write a count whole, another number to four places."""
    if isinstance(value, int):
        return f"{value:,}"
    return plain(value, 4)


def money(value: float) -> str:
    """Write an amount, large ones without cents."""
    return plain(value, 2 if abs(value) < _CENTS_BELOW else 0)


def gain(value: float) -> str:
    """Write an amount with its sign."""
    return ("+" if value > 0 else "") + money(value)


def moment(time_ms: int) -> str:
    """Write a time in UTC; see `spoken_time`."""
    return spoken_time(time_ms * _NS_PER_MS)


def day(time_ms: int) -> str:
    """Write a time's day."""
    return moment(time_ms)[:10]


def span(duration_ms: float) -> str:
    """Write a duration; see `spoken_duration`."""
    return spoken_duration(duration_ms / _MS_PER_SECOND)
