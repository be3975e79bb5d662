"""Which column of a file is which field of a bar.

Vendors name the same six things in a dozen ways; a name that could mean something else (a quote volume, an
adjusted close) is not guessed at. An adjusted close is refused because open, high and low beside it are not
adjusted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from adapters.barfile.refusals import Place, column_missing, listed, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

TIME = "timestamp"
PRICES_AND_VOLUME = ("open", "high", "low", "close", "volume")
FIELDS = (TIME, *PRICES_AND_VOLUME)
HEADER = ",".join(FIELDS)

_NAMES = {
    TIME: ("timestamp", "time", "date", "datetime", "ts", "open_time", "t", "start"),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "vol", "v", "base_volume"),
}
_FIELD_OF = {name: field for field, names in _NAMES.items() for name in names}
_BETWEEN_WORDS = re.compile(r"[\s_-]+")
_DATUM = re.compile(r"[+-]?\d[\d.:eE+/TZ -]*")


class Columns(NamedTuple):
    """Positions of the six fields in a file.

    names: every column's name as written.
    at: field to position, without the time.
    time: position of the time column, or of a date and a clock column to be joined.
    """

    names: tuple[str, ...]
    at: dict[str, int]
    time: tuple[int, ...]

    def joining_note(self) -> str | None:
        """Say that two columns make the time."""
        if len(self.time) == 1:
            return None
        date, clock = (shown(self.names[position]) for position in self.time)
        return f'Times are joined from the columns "{date}" and "{clock}".'


def canonical(name: str) -> str:
    """Strip case, margins and byte order mark; join words by `_`."""
    return _BETWEEN_WORDS.sub("_", name.strip("\ufeff \t\r\n").lower())


def recognised(names: Sequence[str]) -> int:
    """Count the names that are a field's."""
    return sum(canonical(name) in _FIELD_OF for name in names)


def assign(names: Sequence[str], place: Place) -> Columns:
    """Find each field's column.

    Raises SourceDataInvalid (SOURCE_COLUMN_MISSING) when a field has no column or more than one; a `date` and
    a `time` column are one time in two parts.
    """
    found: dict[str, list[int]] = {field: [] for field in FIELDS}
    for position, name in enumerate(names):
        if field := _FIELD_OF.get(canonical(name)):
            found[field].append(position)
    if missing := [field for field in FIELDS if not found[field]]:
        raise column_missing(place, missing, _why_missing(names, missing, place))
    time = _date_then_clock(names, found[TIME])
    for field, positions in found.items():
        if len(positions) > 1 and not (field == TIME and len(time) > 1):
            rivals = listed([names[position] for position in positions])
            why = f"columns {rivals} would all be {field}; rename or remove all but one"
            raise column_missing(place, [field], why)
    return Columns(tuple(names), {field: found[field][0] for field in PRICES_AND_VOLUME}, time)


def _date_then_clock(names: Sequence[str], positions: list[int]) -> tuple[int, ...]:
    by_name = {canonical(names[position]): position for position in positions}
    if len(positions) == len(by_name) == 2 and by_name.keys() == {"date", "time"}:  # noqa: PLR2004 - a pair
        return by_name["date"], by_name["time"]
    return tuple(positions[:1])


def _why_missing(names: Sequence[str], missing: list[str], place: Place) -> str:
    found = f"(found {listed(names)})"
    if len(missing) == len(FIELDS) and any(_DATUM.fullmatch(name.strip()) for name in names):
        return f'the header is missing: put "{HEADER}", in the order of the columns, above the rows {found}'
    where = "the schema" if place.number is None else "the header line"
    why = f"no column for {', '.join(missing)}: {where} must name {HEADER}, in any order {found}"
    if "close" in missing and any(canonical(name).startswith("adj") for name in names):
        why += "; an adjusted close is not taken as close, for the other prices are not adjusted"
    return why
