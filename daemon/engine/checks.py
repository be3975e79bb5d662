"""The check at the door: no kernel looks at arrays that have not passed it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from daemon.core.market import Bars


class Violation(NamedTuple):
    """The first row that is no bar.

    row: its place. field: the column to look at. rule: what does not hold, in words.
    """

    row: int
    field: str
    rule: str


def check(bars: Bars) -> Violation | None:
    """Find the first bar that breaks a rule, None where all are sound.

    Prices are finite and positive, low <= open, close <= high; volume is finite and not negative, and may be
    fractional. Times are not looked at.
    """
    rules = (
        *((name, ~np.isfinite(getattr(bars, name)), "is not a finite number") for name in Bars._fields[1:]),
        *((name, getattr(bars, name) <= 0, "is not positive") for name in Bars._fields[1:5]),
        ("high", bars.high < bars.low, "is below the low"),
        ("open", bars.open > bars.high, "is above the high"),
        ("open", bars.open < bars.low, "is below the low"),
        ("close", bars.close > bars.high, "is above the high"),
        ("close", bars.close < bars.low, "is below the low"),
        ("volume", bars.volume < 0, "is negative"),
    )
    found = [Violation(int(np.argmax(broken)), field, rule) for field, broken, rule in rules if broken.any()]
    return min(found, key=lambda violation: violation.row, default=None)
