"""A configuration whose strategy is a trader's own: a file of the strategy folder, by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.core.backtest import Own
from daemon.core.errors import AtlasError, Code, NotFound
from daemon.research.backtest_config.fields import Fields, Limits, at_field, refused
from daemon.research.own.declaring import declared
from daemon.research.own.folder import digest_of

if TYPE_CHECKING:
    from daemon.research.own.declaring import Declared
    from daemon.research.own.folder import StrategyFolder

OWN_FIELDS: Final = ("own", "file")

_DECIDED: Final = {
    **dict.fromkeys(("exitRules", "shortExitRules", "riskProfile"), "when a position is closed"),
    **dict.fromkeys(("entryRules", "shortEntryRules", "side"), "when a position is opened, and on which side"),
    "entryOrder": "how orders are sent",
    "sizing": "how large orders are",
}
_CALLED: Final = {
    "bars": ("on_bar", "on_timer"),
    "ticks": ("on_bar", "on_trade", "on_timer"),
    "book": ("on_bar", "on_trade", "on_book", "on_timer"),
}
"""What a strategy is called for by itself; its fills besides."""


def refuse_files(fields: Fields) -> None:
    """Refuse a path: the command line puts the file into the strategy folder, and its id in the path's place."""
    if "file" in fields:
        raise refused(
            fields.at("file"),
            "is for the command line alone, which reads it beside the configuration's own file: here give `own`, the "
            "id of a file in the strategy folder",
        )


def refuse_decided(strategy: Fields, backtest: Fields) -> None:
    """Refuse fields that say what an own strategy itself decides."""
    for fields in (strategy, backtest):
        for name, what in _DECIDED.items():
            if name in fields:
                raise refused(
                    fields.at(name), f"does not go with {strategy.at('own')}: an own strategy itself decides {what}"
                )


def read_own(fields: Fields, folder: StrategyFolder | None, readings: list[str]) -> Own:
    """Read which strategy it is, and its parameters.

    NotFound STRATEGY_NOT_FOUND, InvalidRequest STRATEGY_INVALID, or INVALID_CONFIGURATION for a parameter that there is
    not or that is out of its range; each with the field's path.
    """
    strategy_id, path = fields.text("own") or "", fields.at("own")
    if folder is None:
        raise at_field(NotFound(Code.STRATEGY_NOT_FOUND, "there is no strategy folder here"), path)
    try:
        source = folder.read(strategy_id)
        said = declared(source, f"{strategy_id}.py")
    except AtlasError as error:
        raise at_field(error, path) from None
    given = fields.raw("parameters") if "parameters" in fields else {}
    at = fields.at("parameters")
    if not said.parameters and given:
        raise refused(at, f"{strategy_id} declares none")
    written = Fields(given, at, said.parameters)
    parameters = {}
    for name, each in said.parameters.items():
        value = written.number(name, Limits(least=each.low, most=each.high))
        if value is not None:
            parameters[name] = value
    readings.append(_told(strategy_id, said, parameters))
    return Own(strategy_id, digest_of(source), parameters)


def check_called(said: Declared, strategy_id: str, fills: str, path: str, readings: list[str]) -> None:
    """Refuse a strategy that nothing would ever call; handlers that nothing calls are told."""
    called = _CALLED[fills]
    idle = [name for name in said.handlers if name not in (*called, "on_fill")]
    if not any(name in called for name in said.handlers):
        needs = next((each for each, names in _CALLED.items() if any(name in names for name in said.handlers)), None)
        why = f'is "{fills}", where nothing calls {strategy_id}: it has {", ".join(said.handlers)}'
        raise refused(path, f'{why}; take "{needs}"' if needs else why)
    if idle:
        readings.append(f"On fills {fills} nothing calls {', '.join(idle)} of {strategy_id}.")


def declared_by(own: Own, folder: StrategyFolder | None) -> Declared:
    """Return what the source of a specification declares; errors as of `StrategyFolder.source_of`."""
    if folder is None:
        raise NotFound(Code.STRATEGY_NOT_FOUND, f"there is no strategy folder to look for {own.id} in")
    return declared(folder.source_of(own), f"{own.id}.py")


def _told(strategy_id: str, said: Declared, parameters: dict[str, float]) -> str:
    values = ", ".join(f"{name} {parameters.get(name, each.default):g}" for name, each in said.parameters.items())
    called = ", ".join(said.handlers)
    return f"Own strategy {strategy_id}, called for {called}{f'; {values}' if values else ''}."
