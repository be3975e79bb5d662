"""A strategy's file that a configuration on the command line names, put into the strategy folder; its id in its place.

Over the API configurations name ids alone: no path and no code crosses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daemon.core.errors import AtlasError
from daemon.research.backtest_config.fields import at_field, refused, text
from daemon.research.own.folder import SUFFIX

if TYPE_CHECKING:
    from daemon.research.own.folder import StrategyFolder

_PATH: Final = "strategy.file"


def with_given(config: Mapping[str, Any], beside: Path, folder: StrategyFolder) -> dict[str, Any]:
    """Return a configuration whose `strategy.file` is kept in the folder and has become `strategy.own`.

    beside: the folder that the path is relative to. A configuration without the field is returned as it is.
    InvalidRequest INVALID_CONFIGURATION for what is no path of a Python file; otherwise as of `StrategyFolder.keep`.
    """
    strategy = config.get("strategy")
    if not isinstance(strategy, Mapping) or strategy.get("file") is None:
        return dict(config)
    if strategy.get("own") is not None:
        raise refused(_PATH, "cannot stand beside strategy.own: give one of them")
    path = beside / Path(text(strategy["file"], _PATH)).expanduser()
    if path.suffix != SUFFIX:
        raise refused(_PATH, f"is {path.name}: a strategy is a Python file, such as market_maker.py")
    try:
        kept = folder.keep(path)
    except AtlasError as error:
        raise at_field(error, _PATH) from None
    rest = {name: value for name, value in strategy.items() if name not in ("file", "own")}
    return {**config, "strategy": {"own": kept, **rest}}
