"""A request to a plan of jobs, jobs to workers, results to the store; views, exports and reports of them.

The names below are what scripts and notebooks import. Each is loaded when it is first asked for: whoever imports a
module of this room loads none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # Scripts and notebooks.
    from daemon.core.errors import AtlasError as AtlasError
    from daemon.core.errors import Code as Code
    from daemon.research.scripting.market import Market as Market
    from daemon.research.scripting.market import Stored as Stored
    from daemon.research.scripting.market import open_market as open_market
    from daemon.research.scripting.market import run as run
    from daemon.research.scripting.results import Backtest as Backtest
    from daemon.research.scripting.results import Optimization as Optimization
    from daemon.research.scripting.results import Probe as Probe
    from daemon.research.scripting.table import Table as Table

_HOMES: Final = {
    # Scripts and notebooks.
    "AtlasError": "daemon.core.errors",
    "Code": "daemon.core.errors",
    "Market": "daemon.research.scripting.market",
    "Stored": "daemon.research.scripting.market",
    "open_market": "daemon.research.scripting.market",
    "run": "daemon.research.scripting.market",
    "Backtest": "daemon.research.scripting.results",
    "Optimization": "daemon.research.scripting.results",
    "Probe": "daemon.research.scripting.results",
    "Table": "daemon.research.scripting.table",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
