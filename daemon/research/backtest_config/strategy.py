"""The `strategy` part of a configuration: a strategy of the registry, inline rules, a template, or a list of orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from daemon.core.backtest import Averaging, Distance, Exits, Grid, Program, Rules, Trailing
from daemon.core.errors import AtlasError, Code, NotFound
from daemon.core.strategy import RiskProfile, Strategy
from daemon.research.backtest_config.fields import (
    Fields,
    at_field,
    camel,
    choice,
    names_of,
    parsed_number,
    read_struct,
    refused,
    shown,
    suggestion,
    text,
)
from daemon.research.backtest_config.mirror import MirrorError, mirrored
from daemon.research.backtest_config.orders import read_orders
from daemon.research.backtest_config.own import OWN_FIELDS, read_own, refuse_files
from daemon.research.backtest_config.rules import read_entries, read_exits, told
from daemon.research.backtest_config.templates import TEMPLATES, Template
from daemon.research.justify import describe
from daemon.research.own.folder import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.core.backtest import Market
    from daemon.core.strategy import Condition
    from daemon.research.backtest_config.settings import Period
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore

SIDES: Final = ("long", "short", "both")
_SENT: Final = ("entryOrder", "sizing")
_RULES: Final = ("side", "exitRules", "shortExitRules", "riskProfile", *_SENT)
# What goes with each form, by the field that decides on it.
_FORMS: Final[dict[str, tuple[str, ...]]] = {
    "orders": (),
    "own": ("parameters",),
    "template": ("parameters", *_RULES),
    "entryRules": ("shortEntryRules", *_RULES),
    "id": _RULES,
    "strategyId": _RULES,
    "name": ("parameters", *_RULES),
}
STRATEGY_FIELDS: Final = tuple(
    dict.fromkeys([*_FORMS, *(name for names in _FORMS.values() for name in names), *OWN_FIELDS])
)


class Traded(NamedTuple):
    """What is traded. name: what the strategy is called."""

    name: str
    program: Program
    exits: Exits


class _Context(NamedTuple):
    """What reading a strategy takes besides its fields."""

    book: RuleBook
    profiles: Mapping[str, RiskProfile]
    readings: list[str]


def read_strategy(
    fields: Fields,
    book: RuleBook,
    profiles: Mapping[str, RiskProfile],
    markets: tuple[Market, ...],
    bars: BarStore,
    period: Period,
    readings: list[str],
) -> Traded:
    """Read what is traded; how much and how orders are sent is read elsewhere."""
    refuse_files(fields)
    form = _form(fields)
    context = _Context(book, profiles, readings)
    if form == "orders":
        return Traded(fields.text("name") or "orders", read_orders(fields, markets, bars, period), Exits())
    if form == "own":
        own = read_own(fields, book.own, readings)
        return Traded(fields.text("name") or name_of(own.id), own, Exits())
    if form == "entryRules":
        traded = _inline(fields, context)
    elif form == "template":
        name = choice(fields.raw("template"), fields.at("template"), list(TEMPLATES), Code.INVALID_STRATEGY)
        traded = _template(fields, name, context)
    else:
        traded = _named(fields, form, context)
    readings.extend(told(traded.exits))
    _tell(traded.program, readings)
    program = traded.program
    if isinstance(program, Rules) and traded.exits == Exits() and not (program.exit_long or program.exit_short):
        readings.append("There is no exit: a position is held to the end of the data.")
    return traded


def _form(fields: Fields) -> str:
    """Find which of the forms it is; what does not go with it is refused."""
    form = fields.only_one("own", "orders", "template", "entryRules", "id", "strategyId")
    if form is None and "shortEntryRules" in fields:
        raise refused(fields.at("entryRules"), 'is missing: with "side": "short" it opens shorts')
    if form is None and "name" not in fields:
        forms = "entryRules, template, orders, own, or id or name of a registry strategy"
        raise refused(fields.path, f"says nothing to trade: give {forms}")
    form = form or "name"
    for name in fields.names:
        if name in fields and name not in (form, "name", *_FORMS[form]):
            raise refused(fields.at(name), f"does not go with {fields.at(form)}")
    return form


# The registry.


def _named(fields: Fields, form: str, context: _Context) -> Traded:
    """Read a strategy that is known by id or name: one of the registry, else a template."""
    given, path = fields.raw(form), fields.at(form)
    strategy = _registered(given, path, context.book)
    is_template = isinstance(given, str) and given.strip() in TEMPLATES
    if is_template and (strategy is None or "parameters" in fields):
        return _template(fields, str(given).strip(), context)
    if strategy is None:
        known = [*(each.name for each in context.book), *TEMPLATES]
        meant = suggestion(given, known)
        what = meant if meant.startswith(";") else f": it is neither one of the registry nor {', '.join(TEMPLATES)}"
        why = f"is {shown(given)}, no strategy{what} (`atlasd strategies list`); rules of your own go into entryRules"
        raise at_field(NotFound(Code.INVALID_STRATEGY, why), path)
    if "parameters" in fields:
        raise refused(fields.at("parameters"), "is for templates: a strategy of the registry has none")
    if is_template:
        context.readings.append(f"`{given}` is strategy {strategy.id} of the registry, not the template of that name.")
    return _registry(fields, strategy, context)


def _registered(given: object, path: str, book: RuleBook) -> Strategy | None:
    """Find a strategy by id or name; None for a name that is not in the registry."""
    number = parsed_number(given)
    if number is None:
        name = text(given, path)
        return next((each for each in book if each.name == name), None)
    if number != int(number):
        raise refused(path, f"is {shown(given)}, neither the id nor the name of a strategy", Code.INVALID_STRATEGY)
    try:
        return book.get(int(number))
    except AtlasError as error:
        raise at_field(error, path) from None


def _registry(fields: Fields, strategy: Strategy, context: _Context) -> Traded:
    context.readings.append(f"Strategy {strategy.id} of the registry, {strategy.display_name}.")
    usual = {"long_short": "both", "long_only": "long", "short_only": "short"}[strategy.direction]
    side = fields.choice("side", SIDES) or usual
    if usual not in ("both", side):
        raise refused(fields.at("side"), f"is {side}, but {strategy.name} trades {usual} only")
    own = Exits(
        take_profit=_atr(strategy.atr_target_mult),
        stop_loss=_atr(strategy.atr_stop_mult),
        trailing_stop=None if not (trail := _atr(strategy.trailing_atr_mult)) else Trailing(trail),
        timeout_bars=strategy.time_stop_bars or None,
    )
    own = _scaled(own, fields, context)
    if own != Exits(timeout_bars=own.timeout_bars):
        context.readings.append(
            "The strategy's distances are of the ATR at the signal's bar; the probe's are of the bar that fills."
        )
    added, exits = read_exits(fields, "exitRules", context.readings, own)
    added_short = _short_signals(fields, added, side, context)
    program = Rules(
        entry_long=strategy.entry_long if side != "short" else (),
        entry_short=strategy.entry_short if side != "long" else (),
        exit_long=(*strategy.exit_long, *added) if side != "short" else (),
        exit_short=(*strategy.exit_short, *(added_short if side == "both" else added)) if side != "long" else (),
        strategy_id=strategy.id,
    )
    return Traded(strategy.name, program, exits)


def _atr(multiple: float | None) -> Distance | None:
    return Distance("atr", multiple) if multiple else None


def _scaled(exits: Exits, fields: Fields, context: _Context) -> Exits:
    """Apply the risk profile's factors to distances and time."""
    name = fields.raw("riskProfile")
    if name is None:
        return exits
    if not context.profiles:
        raise refused(fields.at("riskProfile"), "is given, but no profiles are configured", Code.INVALID_RISK_PROFILE)
    chosen = choice(name, fields.at("riskProfile"), list(context.profiles), Code.INVALID_RISK_PROFILE)
    profile = context.profiles[chosen]
    context.readings.append(
        f"Risk profile {chosen}: stops x {profile.stop_scale:g}, targets x {profile.target_scale:g}, "
        f"trailing stops x {profile.trailing_scale:g}, times x {profile.time_scale:g}."
    )
    trailing = exits.trailing_stop
    return Exits(
        take_profit=_times(exits.take_profit, profile.target_scale),
        stop_loss=_times(exits.stop_loss, profile.stop_scale),
        trailing_stop=trailing and _scaled_trailing(trailing, profile),
        timeout_bars=exits.timeout_bars and max(1, int(exits.timeout_bars * profile.time_scale)),
    )


def _scaled_trailing(trailing: Trailing, profile: RiskProfile) -> Trailing:
    distance = msgspec.structs.replace(trailing.distance, value=trailing.distance.value * profile.trailing_scale)
    return Trailing(distance, trailing.activation)


def _times(distance: Distance | None, scale: float) -> Distance | None:
    return None if distance is None else Distance(distance.unit, distance.value * scale)


# Rules.


def _inline(fields: Fields, context: _Context) -> Traded:
    side = fields.choice("side", SIDES) or "long"
    if "side" not in fields:
        context.readings.append("side is not given: the rules open longs.")
    entries = read_entries(fields, "entryRules", context.readings)
    signals, exits = read_exits(fields, "exitRules", context.readings, Exits())
    short_signals = _short_signals(fields, signals, side, context)
    if side != "both" and "shortEntryRules" in fields:
        raise refused(fields.at("shortEntryRules"), f'goes with "side": "both", it is "{side}"')
    short = side == "short"
    short_entries: tuple[Condition, ...] = ()
    if side == "both":
        given = read_entries(fields, "shortEntryRules", context.readings)
        short_entries = given or _mirror_image(entries, fields.at("entryRules"), context)
    program = Rules(
        entry_long=() if short else entries,
        entry_short=entries if short else short_entries,
        exit_long=() if short else signals,
        exit_short=signals if short else short_signals,
    )
    return Traded(fields.text("name") or "rules", program, _scaled(exits, fields, context))


def _short_signals(
    fields: Fields, signals: tuple[Condition, ...], side: str, context: _Context
) -> tuple[Condition, ...]:
    """Return what closes shorts where both sides are traded: given rules, else the mirror image of the long ones."""
    if "shortExitRules" not in fields:
        return _mirror_image(signals, fields.at("exitRules"), context) if side == "both" else ()
    if side != "both":
        raise refused(fields.at("shortExitRules"), f'goes with "side": "both", it is "{side}"')
    return read_exits(fields, "shortExitRules", context.readings, None)[0]


def _mirror_image(conditions: tuple[Condition, ...], path: str, context: _Context) -> tuple[Condition, ...]:
    name = "short" + path.rpartition(".")[2][:1].upper() + path.rpartition(".")[2][1:]
    found = []
    for place, condition in enumerate(conditions):
        try:
            found.append(mirrored(condition))
        except MirrorError as error:
            why = f"has no mirror image for the short side, {error}: give {name}"
            raise refused(f"{path}[{place}]", why) from None
        context.readings.append(f"Short mirrors long: `{describe(condition)}` becomes `{describe(found[-1])}`.")
    return tuple(found)


# Templates.


def _template(fields: Fields, name: str, context: _Context) -> Traded:
    kind = TEMPLATES[name]
    given = fields.raw("parameters") if "parameters" in fields else {}
    made: Any = read_struct(kind, given, fields.at("parameters"))
    taken = [f"{camel(each)} {getattr(made, each)}" for each in kind.__struct_fields__]
    context.readings.append(f"Template {name}: {', '.join(taken)}.")
    side = fields.choice("side", SIDES)
    label = fields.text("name") or name
    if isinstance(made, Grid | Averaging):
        if side is not None or "shortExitRules" in fields:
            raise refused(fields.at("side" if side else "shortExitRules"), f"does not go with the template {name}")
        signals, exits = read_exits(fields, "exitRules", context.readings, Exits())
        if signals:
            raise refused(fields.at("exitRules"), f"may have stops, targets and times for {name}, no indicators")
        return Traded(label, made, _scaled(exits, fields, context))
    return _template_rules(fields, made, label, side or "long", context)


def _template_rules(fields: Fields, made: Template, label: str, side: str, context: _Context) -> Traded:
    written = Fields(made.rules(), fields.path, STRATEGY_FIELDS)
    nothing: list[str] = []  # a template says all in full
    entries = read_entries(written, "entryRules", nothing)
    own_signals, own_exits = read_exits(written, "exitRules", nothing, Exits())
    added, exits = read_exits(fields, "exitRules", context.readings, _scaled(own_exits, fields, context))
    signals = (*own_signals, *added)
    if side != "long":
        short_entries = _mirror_image(entries, written.at("entryRules"), context)
        given = _short_signals(fields, added, side, context) if side == "both" else added
        short_signals = (*_mirror_image(own_signals, written.at("exitRules"), context), *given)
    else:
        _short_signals(fields, added, side, context)
        short_entries = short_signals = ()
    program = Rules(
        entry_long=entries if side != "short" else (),
        entry_short=short_entries,
        exit_long=signals if side != "short" else (),
        exit_short=short_signals,
    )
    return Traded(label, program, exits)


def _tell(program: Program, readings: list[str]) -> None:
    """Put rules into sentences."""
    if not isinstance(program, Rules) or program.strategy_id is not None:
        return
    for side in ("long", "short"):
        entries, signals = getattr(program, f"entry_{side}"), getattr(program, f"exit_{side}")
        if entries:
            readings.append(f"A {side} is opened after a bar on which {' and '.join(map(describe, entries))}.")
        if signals:
            readings.append(f"A {side} is closed after a bar on which {' or '.join(map(describe, signals))}.")


def parameter_names() -> list[str]:
    """Return the parameters of all templates."""
    return list(dict.fromkeys(name for kind in TEMPLATES.values() for name in names_of(kind)))
