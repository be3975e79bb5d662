"""The fields of a configuration, each read with its path, so that a refusal names it and says what is allowed.

Ranges come from the types of `core.backtest`: what the engine admits is stated once. A field that is null counts as
not given. Numbers may be JSON texts ("0.001"), as a client that holds money as decimals sends them; booleans may not.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import NODEFAULT, inspect

from daemon.core.errors import AtlasError, Code, InvalidRequest
from daemon.core.market import NS_PER_SECOND
from daemon.research.moments import time_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.core.market import TsNs

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHOWN: Final = 60
_MOST_TEXT: Final = 200


class Limits(NamedTuple):
    """What a number may be; None is open. above, below: exclusive; least, most: inclusive."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def admit(self, value: float) -> bool:
        """Tell whether a number is within."""
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        parts = [
            *([] if self.above is None else [f"above {self.above:.12g}"]),
            *([] if self.least is None else [f"{self.least:.12g} or more"]),
            *([] if self.below is None else [f"below {self.below:.12g}"]),
            *([] if self.most is None else [f"{self.most:.12g} or less"]),
        ]
        return " and ".join(parts)


class Fields:
    """An object of a configuration. names: the fields that it may have; another is refused with the nearest of them."""

    def __init__(self, given: object, path: str, names: Iterable[str]) -> None:
        self.path = path
        self.names = tuple(names)
        if not isinstance(given, Mapping):
            raise refused(path, f"is {shown(given)}, not an object with {', '.join(self.names)}")
        self._given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in self.names:
                raise refused(self.at(name), f"is no field of {path or 'a configuration'}{suggestion(name, names)}")

    def at(self, name: object) -> str:
        """Return a field's path."""
        return f"{self.path}.{name}" if self.path else str(name)

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def raw(self, name: str) -> Any:
        """Return what is given, None where nothing is."""
        return self._given.get(name)

    def needed(self, name: str, what: str) -> Any:
        """Return what is given; a missing field is refused."""
        if name not in self._given:
            raise refused(self.at(name), f"is missing: {what}")
        return self._given[name]

    def only_one(self, *names: str) -> str | None:
        """Return which of the fields is given, None for none of them; a second one is refused."""
        given = [name for name in names if name in self]
        if len(given) > 1:
            raise refused(self.at(given[1]), f"cannot stand beside {self.at(given[0])}: give one of them")
        return given[0] if given else None

    def of(self, struct: type[msgspec.Struct], attribute: str, name: str | None = None) -> Any:
        """Read a field as the struct's attribute is typed; its default where it is not given."""
        name = camel(attribute) if name is None else name
        field = _attributes(struct)[attribute]
        if name not in self:
            if field.default is NODEFAULT:
                raise refused(self.at(name), f"is missing: {_wanted(field.type)}")
            return field.default
        return typed(self._given[name], field.type, self.at(name))

    def number(self, name: str, limits: Limits = Limits()) -> float | None:  # noqa: B008 - immutable
        """Read a number; None where it is not given."""
        return number(self._given[name], self.at(name), limits) if name in self else None

    def flag(self, name: str, *, default: bool) -> bool:
        """Read true or false."""
        return flag(self._given[name], self.at(name)) if name in self else default

    def text(self, name: str) -> str | None:
        """Read a text; None where it is not given."""
        return text(self._given[name], self.at(name)) if name in self else None

    def choice(self, name: str, allowed: Sequence[str], code: Code = Code.INVALID_CONFIGURATION) -> str | None:
        """Read one of some words; None where it is not given."""
        return choice(self._given[name], self.at(name), allowed, code) if name in self else None

    def items(self, name: str, most: int) -> list[tuple[Any, str]]:
        """Read a list: each entry and its path; empty where it is not given."""
        return items(self._given[name], self.at(name), most) if name in self else []


def read_struct(struct: type[msgspec.Struct], given: object, path: str) -> Any:
    """Make a struct of plain attributes from an object with their names in camelCase."""
    attributes = _attributes(struct)
    fields = Fields(given, path, [camel(name) for name in attributes])
    values = {name: fields.of(struct, name) for name in attributes}
    try:
        return struct(**values)
    except ValueError as error:
        raise refused(path, str(error)) from None


def names_of(struct: type[msgspec.Struct]) -> list[str]:
    """Return a struct's attributes as configurations call them."""
    return [camel(name) for name in _attributes(struct)]


# Single values.


def typed(value: object, kind: inspect.Type, path: str) -> Any:
    """Read a value of a type as msgspec inspects it: number, whole number, flag, word, or one that may be absent."""
    match kind:
        case inspect.FloatType():
            return number(value, path, _limits(kind))
        case inspect.IntType():
            return whole(value, path, _limits(kind))
        case inspect.BoolType():
            return flag(value, path)
        case inspect.LiteralType(values=words):
            return choice(value, path, [str(word) for word in words])
        case inspect.UnionType(types=(first, inspect.NoneType())):
            return typed(value, first, path)
        case inspect.StructType(cls=struct):
            return read_struct(struct, value, path)
    raise NotImplementedError(f"a field of {kind}")


def number(value: object, path: str, limits: Limits = Limits()) -> float:  # noqa: B008 - immutable
    """Read a finite number within limits, also from a text."""
    read = parsed_number(value)
    if read is None:
        raise refused(path, f"is {shown(value)}, not a number{_range(limits)}")
    if not limits.admit(read):
        raise refused(path, f"is {shown(value)}, it must be {limits}")
    return read


def parsed_number(value: object) -> float | None:
    """Return a finite number from a number or a text of one, None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        read = float(value)
    except OverflowError:
        return None
    return read if math.isfinite(read) else None


def whole(value: object, path: str, limits: Limits) -> int:
    """Read a whole number within limits, also from a text."""
    read = parsed_number(value)
    if read is None or read != int(read):
        raise refused(path, f"is {shown(value)}, not a whole number{_range(limits)}")
    if not limits.admit(read):
        raise refused(path, f"is {shown(value)}, it must be {limits}")
    return int(read)


def flag(value: object, path: str) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise refused(path, f"is {shown(value)}, not true or false")
    return value


def text(value: object, path: str) -> str:
    """Read a text of 1 to 200 characters."""
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _MOST_TEXT:
        raise refused(path, f"is {shown(value)}, not a text of 1 to {_MOST_TEXT} characters")
    return value.strip()


def choice(value: object, path: str, allowed: Sequence[str], code: Code = Code.INVALID_CONFIGURATION) -> str:
    """Read one of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise refused(path, f"is {shown(value)}, not one of {', '.join(allowed)}{_meant(value, allowed)}", code)
    return value


def items(value: object, path: str, most: int) -> list[tuple[Any, str]]:
    """Read a list of 1 to `most` entries: each with its path."""
    if not isinstance(value, list | tuple) or not 0 < len(value) <= most:
        what = f"a list of {len(value)}" if isinstance(value, list | tuple) else shown(value)
        raise refused(path, f"is {what}, not a list of 1 to {most:,} entries")
    return [(entry, f"{path}[{place}]") for place, entry in enumerate(value)]


def span(start: object, start_path: str, end: object, end_path: str) -> tuple[TsNs | None, TsNs | None]:
    """Read two times as [start, stop) in ns: days (the last one whole), days with a clock, or Unix milliseconds."""
    texts = [_time_text(start, start_path), _time_text(end, end_path)]
    try:
        return time_range(*texts)
    except InvalidRequest as error:
        path = end_path if (error.details or {}).get("field") == "end" else start_path
        raise refused(path, error.message, error.code) from None


def moment(value: object, path: str) -> TsNs:
    """Read one time in ns; of a day its first moment."""
    start_ns, _ = span(value, path, None, path)
    if start_ns is None:
        raise refused(path, "is missing: a time such as 2024-01-31T14:30:00Z, or Unix milliseconds")
    return start_ns


def _time_text(value: object, path: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    read = parsed_number(value)
    if read is None or read != int(read):
        why = f"is {shown(value)}, not a time: write 2024-01-31, 2024-01-31T14:30:00Z or Unix milliseconds"
        raise refused(path, why, Code.INVALID_DATE_RANGE)
    return str(int(read))


# Refusals.


def refused(path: str, why: str, code: Code = Code.INVALID_CONFIGURATION) -> InvalidRequest:
    """Return the refusal of a field. path: from the configuration's root."""
    return InvalidRequest(code, f"{path or 'configuration'}: {why}", {"field": path})


def at_field(error: AtlasError, path: str) -> AtlasError:
    """Return another room's refusal with the field it is about."""
    details = {**(error.details or {}), "field": path}
    return type(error)(error.code, f"{path}: {error.message}", details)


def suggestion(given: object, names: Iterable[str]) -> str:
    """Say what was probably meant, or what there is."""
    listed = list(names)
    meant = _meant(given, listed)
    return meant or f": {', '.join(listed)}"


def shown(value: object) -> str:
    """Put a value that a user gave into a message: as JSON, cut where it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        written = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        written = type(value).__name__
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"


def spoken_moment(time_ns: TsNs) -> str:
    """Write a time for people, UTC: the second only where it is not whole minutes."""
    moment_ = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_ns // NS_PER_SECOND)
    return moment_.strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00")


def camel(name: str) -> str:
    """`window_size` as configurations write it: `windowSize`."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _meant(given: object, names: Sequence[str]) -> str:
    by_folded = {_folded(name): name for name in names}
    near = difflib.get_close_matches(_folded(str(given)), by_folded, n=1, cutoff=0.6)
    return f"; did you mean `{by_folded[near[0]]}`?" if near else ""


def _folded(name: str) -> str:
    return name.lower().replace("_", "")


def _range(limits: Limits) -> str:
    return f" {limits}" if str(limits) else ""


def _wanted(kind: inspect.Type) -> str:
    match kind:
        case inspect.FloatType():
            return f"a number{_range(_limits(kind))}"
        case inspect.IntType():
            return f"a whole number{_range(_limits(kind))}"
        case inspect.LiteralType(values=words):
            return f"one of {', '.join(map(str, words))}"
    return "a value is needed"


def _limits(kind: inspect.FloatType | inspect.IntType) -> Limits:
    return Limits(kind.gt, kind.ge, kind.lt, kind.le)


@functools.cache
def _attributes(struct: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    info = inspect.type_info(struct)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{struct} is no struct")
    return {field.name: field for field in info.fields}
