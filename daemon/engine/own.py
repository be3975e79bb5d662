"""A trader's own strategy, as the loop calls it: its fields in one record, its handlers compiled or as Python."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.engine.context import Parameter, Strategy


class Handler(IntEnum):
    """What a strategy may be called for."""

    BAR = 0
    TRADE = 1
    BOOK = 2
    FILL = 3
    TIMER = 4


class OwnStrategy(NamedTuple):
    """A class that was read from a file, and checked.

    file: its name, for tracebacks. digest: SHA-256 of the source, hex. parameters, columns: as declared, by name;
    columns are names of the engine's. state: bool, int, float or array, by name. handlers: those it has.
    timer_ns: between calls of `on_timer`.
    """

    made: type[Strategy]
    name: str
    file: str
    digest: str
    parameters: Mapping[str, Parameter]
    columns: Mapping[str, str]
    state: Mapping[str, object]
    handlers: frozenset[Handler]
    timer_ns: int
