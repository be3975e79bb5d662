"""Every configuration that a user may write, read into the one specification that the engine gets.

A configuration is refused at its first wrong field, with the field's path, what is wrong and what is allowed; nothing
is dropped silently. What was short or ambiguous is answered by a sentence of `BacktestSpec.readings`.
`docs/backtest-config.md` describes every field.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

import msgspec

from daemon.core.backtest import BacktestSpec, EntryOrder, FixedFractional, MonteCarlo, Own, Validation
from daemon.core.errors import AtlasError
from daemon.core.execution import Queue
from daemon.core.strategy import Condition
from daemon.research.backtest_config import flat
from daemon.research.backtest_config.fields import Fields, names_of, read_struct, refused, shown, suggestion
from daemon.research.backtest_config.latency import LATENCY_SHAPE, read_latency
from daemon.research.backtest_config.orders import (
    ENTRY_FIELDS,
    ORDER_FIELDS,
    SIZINGS,
    TRAIL_FIELDS,
    read_entry_order,
    read_sizing,
)
from daemon.research.backtest_config.own import check_called, declared_by, refuse_decided
from daemon.research.backtest_config.rules import (
    COMPARISON_FIELDS,
    DISTANCE_FIELDS,
    TIMEOUT_FIELDS,
    TRAILING_FIELDS,
    UNITS,
)
from daemon.research.backtest_config.settings import (
    BACKTEST_FIELDS,
    INSTRUMENT_FIELDS,
    check_books,
    read_account,
    read_calendar,
    read_costs,
    read_fills,
    read_funding,
    read_markets,
    read_period,
    read_queue,
    slippage_names,
    with_calibrations,
)
from daemon.research.backtest_config.strategy import STRATEGY_FIELDS, parameter_names, read_strategy
from daemon.research.plans import RUN_ID_PATTERN
from daemon.research.ranges import read_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.core.backtest import Sizing
    from daemon.core.strategy import RiskProfile
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore

CONFIG_FIELDS: Final = ("id", "name", "strategy", "backtest", "validation")
_NO_PROFILES: Final[Mapping[str, RiskProfile]] = MappingProxyType({})


def read_config(
    config: Mapping[str, Any],
    bars: BarStore,
    book: RuleBook,
    profiles: Mapping[str, RiskProfile] = _NO_PROFILES,
) -> BacktestSpec:
    """Read a configuration, nested or flat.

    config: decoded JSON. bars: what symbols, timeframes and dates are checked against. profiles: by name.
    InvalidRequest INVALID_CONFIGURATION, INVALID_SYMBOL, AMBIGUOUS_SYMBOL, INVALID_TIMEFRAME, INVALID_DATE_RANGE,
    INVALID_STRATEGY or INVALID_RISK_PROFILE, and NotFound INVALID_SYMBOL, INVALID_STRATEGY, NO_BARS, NO_ROWS or
    NO_DEPTH, each with the field's path in `details["field"]`.
    """
    if not isinstance(config, Mapping) or not flat.is_flat(config):
        return _read(config, bars, book, profiles, ())
    written = flat.nested(config)
    try:
        return _read(written.config, bars, book, profiles, written.readings)
    except AtlasError as error:
        raise _renamed(error) from None


def resolve_set(config: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """Return a configuration with one field set, as `--set backtest.symbols[0]=ETH/USDT` asks.

    The value is read as JSON, and as text where it is none. InvalidRequest INVALID_CONFIGURATION for a path that is no
    field of a configuration, or a place of a list beyond its end.
    """
    path, equals, written = assignment.partition("=")
    steps = _steps(path.strip())
    if not equals or steps is None:
        raise refused("--set", f"`{assignment[:80]}` is not `path=value`, such as backtest.commission=0.002")
    shape: _Shape = _FLAT_SHAPE if flat.is_flat(config) else _shape_of(config)
    walked = ""
    for step in steps:
        shape = _below(shape, step, walked)
        walked += f"[{step}]" if isinstance(step, int) else f".{step}" if walked else step
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    _put(changed, steps, _decoded(written))
    return changed


def _read(
    config: Mapping[str, Any],
    bars: BarStore,
    book: RuleBook,
    profiles: Mapping[str, RiskProfile],
    said: Iterable[str],
) -> BacktestSpec:
    top = Fields(config, "", CONFIG_FIELDS)
    _check_id(top)
    readings = list(said)
    strategy = Fields(
        top.needed("strategy", "what is traded: rules, a template, a registry strategy or orders"),
        "strategy",
        STRATEGY_FIELDS,
    )
    backtest = Fields(top.needed("backtest", "at least its symbols"), "backtest", BACKTEST_FIELDS)
    period = read_period(backtest, readings)
    fills, limit_fills = read_fills(backtest)
    queue = read_queue(backtest, fills)
    if "own" in strategy:
        refuse_decided(strategy, backtest)
    account = read_account(backtest, readings)
    costs = read_costs(backtest, readings, fills)
    markets, timeframe = read_markets(backtest, bars, period, fills, readings)
    markets = with_calibrations(backtest, markets, bars, readings)
    check_books(backtest, markets, costs.slippage, fills, bars)
    traded = read_strategy(strategy, book, profiles, markets, bars, period, readings)
    if isinstance(traded.program, Own):
        declares = declared_by(traded.program, book.own)
        check_called(declares, traded.program.id, fills, backtest.at("fills"), readings)
    entry = strategy.raw("entryOrder")
    spec = BacktestSpec(
        name=top.text("name") or traded.name,
        markets=markets,
        timeframe=timeframe,
        start_ns=period.start_ns,
        stop_ns=period.stop_ns,
        program=traded.program,
        exits=traded.exits,
        entry_order=EntryOrder() if entry is None else read_entry_order(entry, strategy.at("entryOrder")),
        sizing=_sizing(strategy, backtest, readings),
        costs=costs,
        account=account,
        funding=read_funding(backtest, readings),
        latency=read_latency(backtest, markets, bars, fills, readings),
        fills=fills,
        queue=queue,
        limit_fills=limit_fills,
        calendar_days=read_calendar(backtest),
        validation=_validation(top),
    )
    return msgspec.structs.replace(spec, readings=tuple(dict.fromkeys(readings)))


def _check_id(top: Fields) -> None:
    """Refuse an id that could not name a backtest; it is the queue that gives and uses ids."""
    name = top.text("id")
    if name is not None and not RUN_ID_PATTERN.fullmatch(name):
        raise refused("id", f"is {shown(name)}: letters, digits and ._- only, 1 to 50 of them")


def _sizing(strategy: Fields, backtest: Fields, readings: list[str]) -> Sizing:
    if "sizing" in strategy and "sizing" in backtest:
        raise refused(backtest.at("sizing"), "cannot stand beside strategy.sizing: give one of them")
    for fields in (strategy, backtest):
        if "sizing" in fields:
            return read_sizing(fields.raw("sizing"), fields.at("sizing"))
    if "own" in strategy:
        return FixedFractional()  # nothing asks for it: orders say how large they are
    readings.append("sizing is not given: a position takes its symbol's whole share of the equity.")
    return FixedFractional()


def _validation(top: Fields) -> Validation | None:
    if "validation" not in top:
        return None
    written = top.raw("validation")
    asked = written.get("parameters") if isinstance(written, Mapping) else None
    if asked is None:
        validation: Validation = read_struct(Validation, written, "validation")
        return validation
    if not isinstance(asked, Mapping) or not asked:
        raise refused(
            "validation.parameters", 'is an object of ranges by name, such as {"take_profit": "0.01:0.05:0.01"}'
        )
    ranges = [read_range(str(name), each) for name, each in asked.items()]
    endless = next((each.name for each in ranges if each.is_continuous), None)
    if endless is not None:
        raise refused(f"validation.parameters.{endless}", "has no values to choose from: give a step, or a list")
    rest = {name: value for name, value in written.items() if name != "parameters"}
    others: Validation = read_struct(Validation, rest, "validation")
    return msgspec.structs.replace(others, parameters={each.name: each.values for each in ranges})


def _renamed(error: AtlasError) -> AtlasError:
    """Return a refusal with the names of the flat form."""
    details = dict(error.details or {})
    path = details.get("field")
    if not isinstance(path, str):
        return error
    ours = flat.flat_path(path)
    return type(error)(error.code, ours + error.message.removeprefix(path), details | {"field": ours})


# Paths of `--set`.

_Shape: TypeAlias = "dict[str, Any] | list[Any] | None"
"""What may lie below a field: fields by name (`*` is any), a list's entries, or nothing known: None admits all."""

_LEAF: Final[dict[str, Any]] = {}
_NOWHERE: Final[list[Any]] = []
_DISTANCE: Final = dict.fromkeys(UNITS, _LEAF)
_PATH: Final = re.compile(r"([^.\[\]=]+)((?:\[\d{1,6}\])*)(?:\.|$)")
_RULE: Final[dict[str, Any]] = {
    **dict.fromkeys((*COMPARISON_FIELDS, *DISTANCE_FIELDS, *TRAILING_FIELDS, *TIMEOUT_FIELDS), _LEAF),
    **dict.fromkeys((name for kind in get_args(Condition) for name in kind.__struct_fields__), _LEAF),
    "value": None,
    "activation": _DISTANCE,
    "distance": _DISTANCE,
    "conditions": None,
    "condition": None,
}
_TRAIL: Final = dict.fromkeys(TRAIL_FIELDS, _DISTANCE) | _DISTANCE
_SIZING: Final = dict.fromkeys(["type", *(name for struct in SIZINGS.values() for name in names_of(struct))], _LEAF)
_SHAPE: Final[dict[str, Any]] = {
    "id": _LEAF,
    "name": _LEAF,
    "strategy": {
        **dict.fromkeys(STRATEGY_FIELDS, _LEAF),
        **{name: [_RULE] for name in ("entryRules", "exitRules", "shortEntryRules", "shortExitRules")},
        "parameters": dict.fromkeys(parameter_names(), _LEAF),
        "entryOrder": dict.fromkeys(ENTRY_FIELDS, _LEAF) | dict.fromkeys(("offset", "limitOffset"), _DISTANCE),
        "sizing": _SIZING,
        "orders": [
            dict.fromkeys(ORDER_FIELDS, _LEAF)
            | {"takeProfit": _DISTANCE, "stopLoss": _DISTANCE, "trail": _TRAIL, "trailingStop": _TRAIL}
        ],
    },
    "backtest": {
        **dict.fromkeys(BACKTEST_FIELDS, _LEAF),
        "symbols": [_LEAF],
        "slippage": dict.fromkeys(slippage_names(), _LEAF),
        "queue": dict.fromkeys(names_of(Queue), _LEAF),
        "latencyMs": LATENCY_SHAPE,
        "instruments": {"*": dict.fromkeys(INSTRUMENT_FIELDS, _LEAF)},
        "sizing": _SIZING,
    },
    "validation": dict.fromkeys(names_of(Validation), _LEAF)
    | {"monteCarlo": dict.fromkeys(names_of(MonteCarlo), _LEAF)},
}
_FLAT_SHAPE: Final[dict[str, Any]] = {
    **dict.fromkeys(flat.FLAT_FIELDS, _LEAF),
    "symbols": [_LEAF],
    "parameters": dict.fromkeys(flat.PARAMETER_FIELDS, _LEAF),
}


def _shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a nested configuration may hold: an own strategy has parameters of its own names."""
    strategy = config.get("strategy")
    if isinstance(strategy, Mapping) and not {"own", "file"}.isdisjoint(strategy):
        return _SHAPE | {"strategy": _SHAPE["strategy"] | {"parameters": {"*": _LEAF}}}
    return _SHAPE


def _steps(path: str) -> list[str | int] | None:
    """Cut `backtest.symbols[0]` into names and places; None for what is no path."""
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = _PATH.match(path, at)
        if found is None:
            return None
        steps.append(found.group(1))
        steps.extend(int(place) for place in re.findall(r"\d+", found.group(2)))
        at = found.end()
    return steps if steps and not path.endswith(".") else None


def _below(shape: _Shape, step: str | int, walked: str) -> _Shape:
    """Return what may lie below a step; a step that leads nowhere is refused."""
    if shape is None:
        return None
    if isinstance(step, int):
        if isinstance(shape, list):
            below: _Shape = shape[0]
            return below
        raise refused(f"{walked}[{step}]", f"is no field of a configuration: {walked} is no list")
    path = f"{walked}.{step}" if walked else step
    if isinstance(shape, list):
        raise refused(path, f"is no field of a configuration: {walked} is a list, write {walked}[0]")
    found: _Shape = shape.get(step, shape.get("*", _NOWHERE))
    if found is not _NOWHERE:
        return found
    known = suggestion(step, shape) if shape else f": {walked} has no fields"
    raise refused(path, f"is no field of {walked or 'a configuration'}{known}")


def _put(config: dict[str, Any], steps: list[str | int], value: object) -> None:
    """Set what the steps lead to; objects on the way are made, and a list grows by one entry at its end."""
    inside: Any = config
    path = ""
    for place, step in enumerate(steps):
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
        is_last = place == len(steps) - 1
        fresh: Any = value if is_last else [] if isinstance(steps[place + 1], int) else {}
        if isinstance(step, int):
            if not isinstance(inside, list) or step > len(inside):
                size = f"a list of {len(inside)}" if isinstance(inside, list) else shown(inside)
                raise refused(path, f"cannot be set in {size}")
            if step == len(inside):
                inside.append(fresh)
        elif not isinstance(inside, dict):
            raise refused(path, f"cannot be set in {shown(inside)}")
        elif is_last or inside.get(step) is None:
            inside[step] = fresh
        if is_last:
            inside[step] = value
        inside = inside[step]


def _decoded(written: str) -> object:
    try:
        value: object = msgspec.json.decode(written)
    except msgspec.DecodeError:
        return written.strip()
    return value
