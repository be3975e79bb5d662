"""Parameters of a backtest by name: what may be varied, over which values, and the specification at a point.

Three kinds of names. Those of `EXITS` and `INDICATOR_LENGTH` act on any specification, whatever it was written as;
a template's own parameters (`period`) and any numeric field of the configuration (`strategy.entryRules[0].value`) are
set in the configuration, which is then read again: so a value that a user could not have written is refused.
"""

from __future__ import annotations

import itertools
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from daemon.core.backtest import Distance, Exits, Grid, Own, Rules, Trailing
from daemon.core.errors import AtlasError, Code, InvalidRequest
from daemon.engine.columns import canonical
from daemon.engine.families import FAMILIES, MAX_LENGTH, member, spell
from daemon.research.backtest_config.own import declared_by
from daemon.research.backtest_config.read import read_config, resolve_set
from daemon.research.backtest_config.strategy import parameter_names
from daemon.research.own.folder import name_of
from daemon.research.ranges import Range, invalid, read_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daemon.core.backtest import BacktestSpec, Program
    from daemon.core.strategy import RiskProfile
    from daemon.research.own.declaring import DeclaredParameter
    from daemon.research.own.folder import StrategyFolder
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore

Point: TypeAlias = dict[str, float]
"""A value for each parameter."""

INDICATOR_LENGTH: Final = "indicator_length"
"""A factor on the lengths of all indicators that have one."""

POINT: Final = "point"
"""Field of a configuration: parameters by name and the values that they are set to, whatever else it says."""

USUAL_FACTORS: Final = (0.5, 1.0, 2.0)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


# What names do to a specification.


def _distance(old: Distance | None, value: float) -> Distance | None:
    """Keep the unit; 0 switches an exit off."""
    return Distance(unit=old.unit if old else "fraction", value=value) if value > 0 else None


def _take_profit(exits: Exits, value: float) -> Exits:
    return msgspec.structs.replace(exits, take_profit=_distance(exits.take_profit, value))


def _stop_loss(exits: Exits, value: float) -> Exits:
    return msgspec.structs.replace(exits, stop_loss=_distance(exits.stop_loss, value))


def _trailing_stop(exits: Exits, value: float) -> Exits:
    old = exits.trailing_stop
    distance = _distance(old.distance if old else None, value)
    trailing = None if distance is None else Trailing(distance, old.activation if old else None)
    return msgspec.structs.replace(exits, trailing_stop=trailing)


def _trailing_activation(exits: Exits, value: float) -> Exits:
    old = exits.trailing_stop
    if old is None:
        raise invalid("trailing_activation", "there is no trailing stop to begin: give trailing_stop as well")
    return msgspec.structs.replace(exits, trailing_stop=Trailing(old.distance, _distance(old.activation, value)))


def _timeout(exits: Exits, value: float) -> Exits:
    if value != int(value):
        raise invalid("timeout", f"{value:g} is no whole number of bars: a range of them has a step, such as 5:20:1")
    return msgspec.structs.replace(exits, timeout_bars=int(value) or None)


EXITS: Final[dict[str, Callable[[Exits, float], Exits]]] = {
    "take_profit": _take_profit,
    "stop_loss": _stop_loss,
    "trailing_stop": _trailing_stop,
    "trailing_activation": _trailing_activation,
    "timeout": _timeout,
}
"""Exits by name. Distances keep the unit they have (a fraction of the price where there was none); 0 is off."""


def _with_lengths(spec: BacktestSpec, factor: float) -> BacktestSpec:
    if not factor > 0:
        raise invalid(INDICATOR_LENGTH, f"{factor:g} is no factor: it must be above 0")
    if factor == 1.0 or not isinstance(spec.program, Rules):
        return spec
    rules = msgspec.to_builtins(spec.program)
    program = msgspec.convert(_walked(rules, lambda text: _stretched(text, factor)), Rules)
    return msgspec.structs.replace(spec, program=program)


def _walked(value: Any, change: Callable[[str], str], key: str = "") -> Any:
    """Change every operand text of conditions; tags and words of directions are none."""
    if isinstance(value, dict):
        return {name: _walked(each, change, name) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walked(each, change, key) for each in value]
    return change(value) if isinstance(value, str) and key not in ("type", "direction", "program") else value


def _stretched(text: str, factor: float) -> str:
    def column(found: re.Match[str]) -> str:
        known = canonical(found[0])
        which = None if known is None else member(known)
        if which is None:
            return found[0]
        least = FAMILIES[which.family].least
        lengths = tuple(
            min(max(round(length * factor), low), MAX_LENGTH) for length, low in zip(which.lengths, least, strict=True)
        )
        if which.family == "macd" and lengths[0] >= lengths[1]:
            lengths = (lengths[0], lengths[0] + 1, lengths[2])
        return spell(which.stem, lengths, which.deviations)

    return _NAME.sub(column, text)


def has_lengths(spec: BacktestSpec) -> bool:
    """Tell whether any indicator of a specification has a length to vary."""
    return _with_lengths(spec, 2.0) != spec


def without_numbers(spec: BacktestSpec) -> Any:
    """Return what a program says, its numbers and lengths taken out: builtins, the same for all of one idea."""

    def bare(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: bare(each, name) for name, each in value.items() if name != "strategy_id"}
        if isinstance(value, (list, tuple)):
            return [bare(each, key) for each in value]
        if isinstance(value, str) and key not in ("type", "direction", "program"):
            return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", _NAME.sub(_stem, value))
        return value if value is None or isinstance(value, str) else "#"

    if isinstance(spec.program, Rules):
        return bare(msgspec.to_builtins(spec.program))
    if isinstance(spec.program, Grid):
        return ["grid", spec.program.sides]
    if isinstance(spec.program, Own):
        # Every version of a file is a try of one idea: whoever edits it has seen how the last one did.
        return ["own", name_of(spec.program.id)]
    return [type(spec.program).__name__]


def _stem(found: re.Match[str]) -> str:
    known = canonical(found[0])
    which = None if known is None else member(known)
    return found[0] if which is None else which.stem


def defaults(spec: BacktestSpec, own: StrategyFolder | None = None) -> list[Range]:
    """Return what is varied where nobody says: targets, stops and trails that are there, and lengths, x 0.5, 1, 2.

    Of an own strategy its parameters, over the ranges that they are declared with.
    """
    if isinstance(spec.program, Own):
        said = declared_by(spec.program, own)
        return [
            read_range(name, {"low": each.low, "high": each.high, "step": each.step})
            for name, each in said.parameters.items()
        ]
    exits = spec.exits
    present = {
        "take_profit": exits.take_profit,
        "stop_loss": exits.stop_loss,
        "trailing_stop": exits.trailing_stop.distance if exits.trailing_stop else None,
    }
    found = [
        read_range(name, [Decimal(str(distance.value)) * Decimal(str(factor)) for factor in USUAL_FACTORS])
        for name, distance in present.items()
        if distance is not None
    ]
    if has_lengths(spec):
        found.append(read_range(INDICATOR_LENGTH, list(USUAL_FACTORS)))
    return found


# Points.


class Space:
    """All specifications that a configuration can become by changing its parameters."""

    def __init__(
        self,
        config: Mapping[str, Any],
        spec: BacktestSpec,
        bars: BarStore,
        book: RuleBook,
        profiles: Mapping[str, RiskProfile],
    ) -> None:
        """config: as it was sent; spec: what it was read as, its own point included."""
        self._config, self._point = _without_point(config)
        self._sources = bars, book, profiles
        own = spec.program
        self._own = declared_by(own, book.own).parameters if isinstance(own, Own) else None
        self._spec = self._same(read_config(self._config, *self._sources), own) if self._point else spec
        self._read: dict[tuple[tuple[str, float], ...], BacktestSpec] = {}

    def at(self, point: Point) -> BacktestSpec:
        """Return the specification at a point; InvalidRequest INVALID_PARAMETER, or as `read_config` says.

        What the point leaves out is as the configuration's own point has it.
        """
        point = self._point | point
        if self._own is not None:
            self._check_own(point, self._own)
        written = tuple((name, value) for name, value in point.items() if not self._is_ours(name))
        spec = self._spec
        if written:
            if written not in self._read:
                if len(self._read) >= 64:  # noqa: PLR2004 - neighbours in a grid share them; no more are worth keeping
                    self._read.clear()
                self._read[written] = self._written(written)
            spec = self._read[written]
        if self._own is not None and isinstance(spec.program, Own):
            given = {name: value for name, value in point.items() if name in self._own}
            program = msgspec.structs.replace(spec.program, parameters=spec.program.parameters | given)
            return msgspec.structs.replace(spec, program=program)
        exits = spec.exits
        # A trailing stop before the gain at which it begins, in whatever order they were given.
        for name in EXITS:
            if name in point:
                if point[name] < 0:
                    raise invalid(name, f"{point[name]:g} is below 0, which switches it off")
                exits = EXITS[name](exits, point[name])
        if exits != spec.exits:
            spec = msgspec.structs.replace(spec, exits=exits)
        return _with_lengths(spec, point[INDICATOR_LENGTH]) if INDICATOR_LENGTH in point else spec

    def check(self, ranges: Sequence[Range]) -> None:
        """Refuse names that are no parameters and values that are none, by each range's ends and a fraction."""
        named = [each.name for each in ranges]
        repeated = next((name for name in named if named.count(name) > 1), None)
        if repeated is not None:
            raise invalid(repeated, "is given twice")
        first = {each.name: each.low for each in ranges}
        for each in ranges:
            if self._own is None and each.name == INDICATOR_LENGTH and not has_lengths(self._spec):
                raise invalid(each.name, "no indicator of this strategy has a length")
            for value in (each.low, *_fractions(each), each.high):
                self.at(first | {each.name: value})

    @property
    def usual(self) -> list[Range]:
        """What is varied where nobody says."""
        return defaults(self._spec, self._sources[1].own)

    def _is_ours(self, name: str) -> bool:
        return _is_ours(name) if self._own is None else name in self._own

    def _check_own(self, point: Point, own: Mapping[str, DeclaredParameter]) -> None:
        """Refuse what an own strategy does not have, and values beyond what it declares."""
        for name, value in point.items():
            if name not in own:
                if _NAME.fullmatch(name):
                    listed = f"it has {', '.join(own)}" if own else "it has none"
                    raise invalid(name, f"this strategy declares no such parameter: {listed}, or take a field's path")
            elif not own[name].low <= value <= own[name].high:
                raise invalid(name, f"{value:g} is not from {own[name].low:g} to {own[name].high:g}, as it is declared")

    def _same(self, spec: BacktestSpec, program: Program) -> BacktestSpec:
        """Keep the version of an own strategy that the run was made for: its file may have been edited since."""
        if not (isinstance(program, Own) and isinstance(spec.program, Own)):
            return spec
        kept = msgspec.structs.replace(program, parameters=spec.program.parameters)
        return msgspec.structs.replace(spec, program=kept)

    def _written(self, values: tuple[tuple[str, float], ...]) -> BacktestSpec:
        config: Mapping[str, Any] = self._config
        for name, value in values:
            path = f"strategy.parameters.{name}" if name in parameter_names() else name
            number = int(value) if value == int(value) else value
            try:
                config = resolve_set(config, f"{path}={number!r}")
            except AtlasError as error:
                known = f"{', '.join([*EXITS, INDICATOR_LENGTH])}, a template's parameters or a field's path"
                why = f"there is no such parameter ({error.message.removeprefix(f'{path}: ')}): take one of {known}"
                raise invalid(name, why) from None
        try:
            return self._same(read_config(config, *self._sources), self._spec.program)
        except AtlasError as error:
            named = ", ".join(f"{name} = {value:g}" for name, value in values)
            raise InvalidRequest(Code.INVALID_PARAMETER, f"{named}: {error.message}", error.details) from None


def read_specification(
    config: Mapping[str, Any], bars: BarStore, book: RuleBook, profiles: Mapping[str, RiskProfile]
) -> BacktestSpec:
    """Read a configuration, and set the parameters of its `point`; errors as of `read_config` and `Space.at`."""
    plain, point = _without_point(config)
    spec = read_config(plain, bars, book, profiles)
    if not point:
        return spec
    space = Space(plain, spec, bars, book, profiles)
    space.check([read_range(name, value) for name, value in point.items()])
    return space.at(point)


def _without_point(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Point]:
    """Take the field `point` out of a configuration: one value a parameter; INVALID_PARAMETER where it is none."""
    given = config.get(POINT)
    if given is None:
        return {name: value for name, value in config.items() if name != POINT}, {}
    if not isinstance(given, dict):
        raise invalid(POINT, 'it names parameters and their values, such as {"take_profit": 0.02}')
    point = {}
    for name, value in given.items():
        found = read_range(name, value).values
        if len(found) != 1:
            raise invalid(name, "a point has one value of it")
        point[name] = found[0]
    return {name: value for name, value in config.items() if name != POINT}, point


def _fractions(ranged: Range) -> list[float]:
    """Return a value of a range that is no whole number, where it has any: some parameters are whole numbers."""
    if ranged.is_continuous:
        return [ranged.low + (ranged.high - ranged.low) / math.pi]
    return [value for value in ranged.values if value != int(value)][:1]


def _is_ours(name: str) -> bool:
    return name in EXITS or name == INDICATOR_LENGTH


def grid(ranges: Sequence[Range], per_range: int = 3) -> Iterator[Point]:
    """Yield every combination, the last range fastest; a continuous one gives `per_range` values."""
    names = [each.name for each in ranges]
    for values in itertools.product(*(each.spaced(per_range) for each in ranges)):
        yield dict(zip(names, values, strict=True))


def grid_size(ranges: Sequence[Range], per_range: int = 3) -> int:
    """Count what `grid` yields."""
    return math.prod(len(each.spaced(per_range)) for each in ranges)
