"""A request to a plan of jobs, jobs to workers, results to the store; views, exports and reports of them.

Names that scripts and notebooks import, and those that traders write at the top of their own files, are here as well,
and loaded when they are first asked for: the package itself stays cheap to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # What own strategies are written with.
    # Scripts and notebooks.
    from daemon.core.errors import AtlasError, Code
    from daemon.core.ticks import BUY, SELL
    from daemon.engine.context import (
        FOK,
        GTC,
        HERE,
        IOC,
        MARKET,
        Bar,
        Column,
        Context,
        Fill,
        Parameter,
        Strategy,
        Trade,
    )
    from daemon.research.scripting.market import Market, Stored, open_market, run
    from daemon.research.scripting.results import Backtest, Optimization, Probe
    from daemon.research.scripting.table import Table

_NAMES: Final = {
    # What own strategies are written with.
    **dict.fromkeys(
        ("BUY", "SELL", "FOK", "GTC", "HERE", "IOC", "MARKET", "Bar", "Column", "Context", "Fill", "Parameter",
         "Strategy", "Trade"),
        "daemon.engine.context",
    ),
    # Scripts and notebooks.
    **dict.fromkeys(("AtlasError", "Code"), "daemon.core.errors"),
    **dict.fromkeys(("Market", "Stored", "open_market", "run"), "daemon.research.scripting.market"),
    **dict.fromkeys(("Backtest", "Optimization", "Probe"), "daemon.research.scripting.results"),
    "Table": "daemon.research.scripting.table",
}  # fmt: skip
"""Modules of names that are given from here."""

__all__ = [
    "BUY", "FOK", "GTC", "HERE", "IOC", "MARKET", "SELL", "AtlasError", "Backtest", "Bar", "Code", "Column", "Context",
    "Fill", "Market", "Optimization", "Parameter", "Probe", "Stored", "Strategy", "Table", "Trade", "open_market",
    "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a name from where it is defined."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
