"""A request to a plan of jobs, jobs to workers, results to the store; views, exports and reports of them.

Names that traders write at the top of their own files are here as well, and loaded when they are first asked for: the
package itself stays cheap to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # What own strategies are written with.
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

_NAMES: Final = {
    # What own strategies are written with.
    **dict.fromkeys(
        ("BUY", "SELL", "FOK", "GTC", "HERE", "IOC", "MARKET", "Bar", "Column", "Context", "Fill", "Parameter",
         "Strategy", "Trade"),
        "daemon.engine.context",
    ),
}  # fmt: skip
"""Modules of names that are given from here."""

__all__ = [
    "BUY", "FOK", "GTC", "HERE", "IOC", "MARKET", "SELL", "Bar", "Column", "Context", "Fill", "Parameter", "Strategy",
    "Trade",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a name from where it is defined."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
