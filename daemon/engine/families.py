"""Families of columns whose parameters stand in the name: `rsi_7`, `macd_8_21_5`, `bb_upper_30_2p5`.

Here are their names, limits and memories; `indicators` computes them. Neither TA-Lib nor numba is needed for that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_LENGTH: Final = 5_000
"""The longest length in bars; what takes a window per bar (CCI) stays within seconds on a million bars."""

DEVIATIONS: Final = 2.0
"""How far the Bollinger bands stand where the name does not say."""

_LENGTH = re.compile(r"[1-9][0-9]{0,3}")
_DEVIATIONS = re.compile(r"(?:0|[1-9][0-9]?)(?:p[0-9]{1,4})?")


class Family(NamedTuple):
    """Columns that one computation yields together, each named `stem_length_length…`.

    stems: their names without parameters. least: of each length, as TA-Lib takes it.
    memory: lengths to bars, see `columns.lookback`. bare: the lengths for which the catalogue says the stem alone.
    """

    stems: tuple[str, ...]
    least: tuple[int, ...]
    memory: Callable[..., int]
    bare: tuple[int, ...] = ()


class Member(NamedTuple):
    """One column of a family. family: its key. lengths: bars. deviations: of the Bollinger columns alone."""

    family: str
    stem: str
    lengths: tuple[int, ...]
    deviations: float = DEVIATIONS


def _window(bars: int) -> int:
    return bars - 1


def _changes(bars: int) -> int:
    """Look back over `bars` changes: one bar more than a window has."""
    return bars


def exponential(bars: int) -> int:
    """Bars until an EMA has forgotten its start: its seed, then (1 - 2 / (bars + 1)) ^ (10 bars) <= e^-20."""
    return 11 * bars


def wilder(bars: int) -> int:
    """Bars until a Wilder average has forgotten its start: its seed, then (1 - 1 / bars) ^ (20 bars) <= e^-20."""
    return 21 * bars


def _kaufman(bars: int) -> int:
    """Never adapts slower than (2/31)^2 a bar, whatever its length: at worst 4.5e-5 remains."""
    return bars + 2_400


def _family(stem: str, least: int, memory: Callable[[int], int]) -> Family:
    return Family((stem,), (least,), memory)


FAMILIES: Final[dict[str, Family]] = {
    "sma": _family("sma", 1, _window),
    "ema": _family("ema", 1, exponential),
    "wma": _family("wma", 1, _window),
    "dema": _family("dema", 1, lambda bars: 2 * exponential(bars)),
    "tema": _family("tema", 1, lambda bars: 3 * exponential(bars)),
    "kama": _family("kama", 1, _kaufman),
    "rsi": _family("rsi", 2, wilder),
    "atr": _family("atr", 1, wilder),
    "natr": _family("natr", 1, wilder),
    "adx": _family("adx", 2, lambda bars: 2 * wilder(bars)),
    "plus_di": _family("plus_di", 1, wilder),
    "minus_di": _family("minus_di", 1, wilder),
    "cci": _family("cci", 2, _window),
    "willr": _family("willr", 2, _window),
    "mfi": _family("mfi", 2, _changes),
    "roc": _family("roc", 1, _changes),
    "mom": _family("mom", 1, _changes),
    "cmo": _family("cmo", 2, wilder),
    "trix": _family("trix", 1, lambda bars: 3 * exponential(bars) + 1),
    "stddev": _family("stddev", 2, _window),
    "linearreg_slope": _family("linearreg_slope", 2, _window),
    "volume_sma": _family("volume_sma", 1, _window),
    "volume_ema": _family("volume_ema", 1, exponential),
    "atr_sma": _family("atr_sma", 1, lambda bars: wilder(14) + bars - 1),
    "vwap": _family("vwap", 1, _window),
    "donchian_high": _family("donchian_high", 1, _window),
    "donchian_low": _family("donchian_low", 1, _window),
    "donchian_mid": _family("donchian_mid", 1, _window),
    "bbands": Family(("bb_upper", "bb_middle", "bb_lower"), (2,), _window, bare=(20,)),
    "bb_width": Family(("bb_width",), (2,), _window, bare=(20,)),
    "bb_pct": Family(("bb_pct",), (2,), _window, bare=(20,)),
    "macd": Family(
        ("macd", "macd_signal", "macd_hist"),
        (2, 2, 1),
        lambda _fast, slow, signal: exponential(slow) + exponential(signal),
        bare=(12, 26, 9),
    ),
    "stoch": Family(("stoch_k", "stoch_d"), (1, 1, 1), lambda *bars: sum(bars) - 3, bare=(14, 3, 3)),
    "aroon": Family(("aroon_down", "aroon_up"), (2,), _changes),
}

_FAMILY_OF: Final = {stem: family for family, each in FAMILIES.items() for stem in each.stems}


def member(name: str) -> Member | None:
    """Return what a name stands for: None where no family has it, or a parameter is out of its range.

    A length is a whole number up to MAX_LENGTH without leading zeros; MACD's fast one is the shorter. Deviations are
    above 0 and below 100, `2` or `2p5`.
    """
    words = name.split("_")
    named = next((place for place, word in enumerate(words) if word[:1].isdigit()), len(words))
    stem, texts = "_".join(words[:named]), words[named:]
    key = _FAMILY_OF.get(stem)
    if key is None:
        return None
    family = FAMILIES[key]
    if not texts:
        return Member(key, stem, family.bare) if family.bare else None
    lengths = _lengths(texts[: len(family.least)], family.least)
    deviations = _deviations(stem, texts[len(family.least) :])
    if lengths is None or deviations is None or (key == "macd" and lengths[0] >= lengths[1]):
        return None
    return Member(key, stem, lengths, deviations)


def _lengths(texts: Sequence[str], least: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(texts) != len(least) or not all(map(_LENGTH.fullmatch, texts)):
        return None
    lengths = tuple(map(int, texts))
    fits = all(low <= length <= MAX_LENGTH for low, length in zip(least, lengths, strict=True))
    return lengths if fits else None


def _deviations(stem: str, texts: Sequence[str]) -> float | None:
    if not texts:
        return DEVIATIONS
    if not stem.startswith("bb_") or len(texts) > 1 or not _DEVIATIONS.fullmatch(texts[0]):
        return None
    deviations = float(texts[0].replace("p", "."))
    return deviations if deviations > 0 else None


def spell(stem: str, lengths: tuple[int, ...], deviations: float = DEVIATIONS) -> str:
    """Return the one name of a family's column: what is usual is left out, so `bb_upper_20_2p0` is `bb_upper`.

    The middle band lies at no deviation, so that it has the same name for all.
    """
    usual = deviations == DEVIATIONS or stem == "bb_middle"
    if usual and lengths == FAMILIES[_FAMILY_OF[stem]].bare:
        return stem
    words = [stem, *map(str, lengths)]
    if not usual:
        words.append(f"{deviations:.4f}".rstrip("0").rstrip(".").replace(".", "p"))
    return "_".join(words)
