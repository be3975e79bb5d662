"""What scripts and notebooks find: the data folder and the settings of the command line.

`daemon.research` asks for this module by its name: it is the one that hands a script what only this room knows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon.app.config import load
from daemon.research.scripting.opening import Settings

if TYPE_CHECKING:
    from daemon.research.strategies import RuleBook

DATA_DIR_VARIABLE: Final = "ATLASD_DATA_DIR"


def settings(folder: Path | None, config: Path | None) -> Settings:
    """Find the data folder and what of the configuration research needs; ConfigError CONFIG_INVALID.

    folder, config: as `--data-dir` and `--config`; without a folder it is that of the environment's variable.
    """
    loaded = load(config)
    given = os.environ.get(DATA_DIR_VARIABLE)
    chosen = folder if folder is not None else Path(given) if given else None

    data = loaded.data_dir(chosen)

    def prepare() -> RuleBook:
        from daemon.app import wiring

        wiring.check_cache()
        return wiring.rule_book(loaded, data)

    return Settings(
        data,
        config,
        loaded.store,
        loaded.probe.risk_profiles,
        loaded.strategies.budget,
        prepare,
    )
