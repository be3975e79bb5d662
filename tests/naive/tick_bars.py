"""Bars from ticks, slowly and obviously: fractions where ticks are integers, plain floats where they are floats.

Nothing is shared with `daemon.engine`, and nothing is streamed: every bar is made from the list of its own ticks.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from operator import add
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.ticks import Ticks

Number: TypeAlias = Fraction | float


class Tick(NamedTuple):
    """One trade; price and size exact, or the float that came."""

    time_ns: int
    price: Number
    size: Number


class Bar(NamedTuple):
    """One bar; end_ns is the time of its last tick."""

    start_ns: int
    end_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def ticks_of(blocks: Sequence[Ticks]) -> list[Tick]:
    """One list of all blocks' rows."""
    return [
        Tick(int(time_ns), _number(price, block.price_decimals), _number(size, block.size_decimals))
        for block in blocks
        for time_ns, price, size in zip(block.time_ns, block.column("price"), block.column("size"), strict=True)
    ]


def _number(value: float, decimals: int | None) -> Number:
    return float(value) if decimals is None else Fraction(int(value), 10**decimals)


def bars(ticks: Sequence[Tick], width_ns: int) -> list[Bar]:
    """Bars of one length, aligned to 1970 UTC; the last may be partial."""
    buckets: dict[int, list[Tick]] = {}
    for tick in ticks:
        buckets.setdefault(tick.time_ns // width_ns * width_ns, []).append(tick)
    return [_bar(start_ns, members) for start_ns, members in buckets.items()]


def measured_bars(ticks: Sequence[Tick], threshold: Number, *, by_notional: bool) -> tuple[list[Bar], list[Bar]]:
    """Return bars that end with the tick that brings volume or notional to the threshold, and the open one, if any."""
    closed, members = [], []
    for tick in ticks:
        members.append(tick)
        if _sum([each.price * each.size if by_notional else each.size for each in members]) >= threshold:
            closed.append(_bar(members[0].time_ns, members))
            members = []
    return closed, [_bar(members[0].time_ns, members)] if members else []


def _bar(start_ns: int, members: Sequence[Tick]) -> Bar:
    prices = [float(tick.price) for tick in members]
    volume = float(_sum([tick.size for tick in members]))
    return Bar(start_ns, members[-1].time_ns, prices[0], max(prices), min(prices), prices[-1], volume)


def _sum(values: Sequence[Number]) -> Number:
    """Straight sum from left to right; the builtin compensates its rounding from Python 3.12 on."""
    return functools.reduce(add, values)
