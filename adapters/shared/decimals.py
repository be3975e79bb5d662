"""Decimal texts to whole numbers, exactly: no price passes through a float.

Venues write "61800.30000000"; what is kept is 618003 of 10^-1. Texts of one list share their decimals.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.core.errors import Code, SourceDataInvalid
from daemon.core.ticks import fewest_decimals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s, Int64s

VECTOR_ROWS = 2_000  # from here on Arrow is faster, its import apart
MAX_DECIMALS = 18  # more do not fit 64 bits beside a single whole digit

# Possessive: what was read is never tried again, so that a long list needs neither time nor memory for it. Each number
# with the line end behind it: Python before 3.11.4 takes half of what a possessive group would match for all of it.
_ALL_PLAIN = re.compile(r"(?:-?[0-9]++(?:\.[0-9]++)?+\n)*+")
# Two digits of exponent: more cannot be a number of 64 bits, and would only cost memory.
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_LONGEST = 100  # characters; far more than any number of 64 bits, few enough to try them
_SHOWN_CHARACTERS = 40
_ARROW_DIGITS = 38


def scaled(texts: Sequence[str], field: str = "number") -> tuple[Int64s, int]:
    """Turn decimal texts into whole numbers of 10^-decimals, at the fewest decimals that hold them all.

    texts: ASCII decimals, also with a sign or an exponent ("1e-8"). field: what they are, for errors.
    Returns ((n,) int64, decimals); ([], 0) for no texts.
    Raises SourceDataInvalid: SOURCE_VALUE_INVALID for a text that is no decimal (NaN, blank, grouped digits),
    TICKS_INVALID where the numbers do not fit 64 bits at common decimals.
    """
    if not texts:
        return np.empty(0, np.int64), 0
    if max(map(len, texts)) > _LONGEST:
        raise _no_fit(max(texts, key=len), field)
    plain = _all_plain(texts)
    if plain and len(texts) >= VECTOR_ROWS and (made := _by_arrow(texts)):
        return made
    return _one_by_one(texts, field) if plain else _one_by_one([_plain(text, field) for text in texts], field)


def nearest(texts: Sequence[str], field: str = "number") -> Float64s:
    """Turn decimal texts into the nearest float64, (n,), finite.

    Raises SourceDataInvalid SOURCE_VALUE_INVALID for a text that is no decimal.
    """
    if texts and not _all_plain(texts):
        texts = [_plain(text, field) for text in texts]
    values = np.fromiter(map(float, texts), np.float64, len(texts))
    if not np.isfinite(values).all():
        raise _no_decimal(texts[int(np.argmin(np.isfinite(values)))], field)
    return values


def _all_plain(texts: Sequence[str]) -> bool:
    # One pass of C over the whole list. A text with a line end of its own matches as two, and is caught by the count.
    joined = "\n".join(texts) + "\n"
    return _ALL_PLAIN.fullmatch(joined) is not None and joined.count("\n") == len(texts)


def _plain(text: str, field: str) -> str:
    """Write out sign and exponent."""
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        raise _no_decimal(text, field)
    return format(Decimal(text), "f")


def _one_by_one(texts: Sequence[str], field: str) -> tuple[Int64s, int]:
    pairs = [text.partition(".")[::2] for text in texts]
    decimals = max(len(fraction) for _, fraction in pairs)
    if decimals > MAX_DECIMALS:
        pairs = [(whole, fraction.rstrip("0")) for whole, fraction in pairs]
        decimals = max(len(fraction) for _, fraction in pairs)
    numbers = [int(whole + fraction.ljust(decimals, "0")) for whole, fraction in pairs]
    try:
        return fewest_decimals(np.array(numbers, np.int64), decimals)
    except OverflowError:
        return _without_common_zeros(numbers, decimals, texts, field)


def _without_common_zeros(numbers: list[int], decimals: int, texts: Sequence[str], field: str) -> tuple[Int64s, int]:
    """Try again without the zeros that all share: 1000000000000000.00000000 does fit."""
    while decimals and not any(number % 10 for number in numbers):
        numbers = [number // 10 for number in numbers]
        decimals -= 1
    try:
        return np.array(numbers, np.int64), decimals
    except OverflowError:
        worst = max(range(len(numbers)), key=lambda place: abs(numbers[place]))
        raise _no_fit(texts[worst], field) from None


def _by_arrow(texts: Sequence[str]) -> tuple[Int64s, int] | None:
    """Convert many at once; None where 38 digits or 64 bits do not hold them as written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.array(texts, pa.string())
    dots = pc.find_substring(column, ".")
    digits = pc.subtract(pc.subtract(pc.binary_length(column), dots), 1)
    decimals: int = pc.max(pc.if_else(pc.less(dots, 0), 0, digits)).as_py()
    if decimals > MAX_DECIMALS or pc.max(pc.binary_length(column)).as_py() > _ARROW_DIGITS:
        return None
    try:
        wide = column.cast(pa.decimal128(_ARROW_DIGITS, decimals))
    except pa.ArrowInvalid:
        return None
    halves: Any = np.frombuffer(wide.buffers()[1], np.int64).reshape(-1, 2)
    low, high = halves[:, 0], halves[:, 1]
    # A 128-bit number fits 64 bits when its upper half only repeats the sign of the lower one.
    if (high != low >> 63).any():
        return None
    return fewest_decimals(np.ascontiguousarray(low), decimals)


def _no_decimal(text: object, field: str) -> SourceDataInvalid:
    return SourceDataInvalid(
        Code.SOURCE_VALUE_INVALID, f"{field} {_shown(text)} is not a decimal number; look at the source"
    )


def _no_fit(text: str, field: str) -> SourceDataInvalid:
    why = f"{field} {_shown(text)} does not fit 64 bits at the decimals that its neighbours need; look at the source"
    return SourceDataInvalid(Code.TICKS_INVALID, why)


def _shown(text: object) -> str:
    written = str(text)
    return repr(written if len(written) <= _SHOWN_CHARACTERS else f"{written[:_SHOWN_CHARACTERS]}…")
