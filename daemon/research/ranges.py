"""Ranges of a parameter's values, as users write them."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.core.errors import Code, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_VALUES: Final = 1_000_000


class Range(NamedTuple):
    """What a parameter may be: one of `values`, or anything from low to high where it has none."""

    name: str
    values: tuple[float, ...]
    low: float
    high: float

    @property
    def is_continuous(self) -> bool:
        """Whether it has no list of values."""
        return not self.values

    def spaced(self, count: int) -> tuple[float, ...]:
        """Return its values, or so many of a continuous one, evenly spaced from low to high."""
        if self.values or count < 2 or self.low == self.high:  # noqa: PLR2004 - one point has no spacing
            return self.values or (self.low,)
        step = (Decimal(str(self.high)) - Decimal(str(self.low))) / (count - 1)
        return tuple(float(Decimal(str(self.low)) + step * place) for place in range(count))


def read_range(name: str, written: Any) -> Range:
    """Read `low:high:step`, `low:high`, `a,b,c` or a number, a list of values, or {low, high, step}.

    Both ends are included, in decimal arithmetic: 0.01:0.05:0.01 is five values. InvalidRequest INVALID_PARAMETER.
    """
    if isinstance(written, str):
        return _from_text(name, written)
    if isinstance(written, dict):
        unknown = set(written) - {"low", "high", "step"}
        if unknown or not {"low", "high"} <= set(written):
            raise invalid(name, "needs low and high, and step if it has one")
        return _stepped(name, [written[key] for key in ("low", "high", "step") if key in written])
    if isinstance(written, (list, tuple)):
        return _listed(name, list(written))
    return _listed(name, [written])


def read_assignment(written: str) -> Range:
    """Read `name=range`, as the command line has it."""
    name, equals, text = written.partition("=")
    if not equals or not name.strip():
        raise invalid(written[:60], "is not NAME=LOW:HIGH:STEP, such as take_profit=0.01:0.05:0.01")
    return read_range(name.strip(), text)


def invalid(name: str, why: str) -> InvalidRequest:
    """Refuse a parameter."""
    return InvalidRequest(Code.INVALID_PARAMETER, f"parameter {name[:80]}: {why}", {"field": name[:80]})


def _from_text(name: str, text: str) -> Range:
    if not text.strip():
        raise invalid(name, "has no values: give LOW:HIGH:STEP or A,B,C")
    return _stepped(name, text.split(":")) if ":" in text else _listed(name, text.split(","))


def _stepped(name: str, parts: Sequence[Any]) -> Range:
    numbers = [_decimal(name, part) for part in parts]
    if not 2 <= len(numbers) <= 3:  # noqa: PLR2004 - with and without a step
        raise invalid(name, "is not LOW:HIGH or LOW:HIGH:STEP")
    low, high = numbers[:2]
    if low > high:
        raise invalid(name, f"its low, {low}, is above its high, {high}")
    if len(numbers) == 2:  # noqa: PLR2004 - no step
        return Range(name, (), float(low), float(high))
    step = numbers[2]
    if step <= 0:
        raise invalid(name, f"its step is {step}: it must be above 0")
    count = int((high - low) / step) + 1
    if count > MOST_VALUES:
        raise invalid(name, f"has {count:,} values, more than {MOST_VALUES:,}: take a larger step")
    return Range(name, tuple(float(low + step * place) for place in range(count)), float(low), float(high))


def _listed(name: str, parts: Sequence[Any]) -> Range:
    values = tuple(dict.fromkeys(float(_decimal(name, part)) for part in parts))
    if not values:
        raise invalid(name, "has no values: give at least one")
    return Range(name, values, min(values), max(values))


def _decimal(name: str, written: Any) -> Decimal:
    try:
        number = Decimal(str(written).strip())
    except InvalidOperation:
        raise invalid(name, f"`{str(written)[:40]}` is not a number") from None
    if isinstance(written, bool) or not number.is_finite() or not math.isfinite(float(number)):
        raise invalid(name, f"`{str(written)[:40]}` is not a finite number")
    return number
