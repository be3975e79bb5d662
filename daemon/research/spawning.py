"""Processes that do not run the script which starts them.

A spawned process runs the main script of its parent once more, up to its guard, to find what the script defines. Ours
take nothing from there; but a script that opens a market at its top would open it in every worker again, which LMDB
refuses, and one without a guard would run its backtests there.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_MAIN: Final = "__main__"
_starting = threading.Lock()


def start_alone(process: BaseProcess) -> None:
    """Start a spawned process whose main module is an empty one. What it is given may hold nothing of the script's."""
    with _starting:
        main = sys.modules[_MAIN]
        sys.modules[_MAIN] = ModuleType(_MAIN)
        try:
            process.start()
        finally:
            sys.modules[_MAIN] = main
