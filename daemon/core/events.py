"""What the daemon tells whoever listens: facts, which are kept and can be replayed, and progress, which is only latest.

Names and fields are those of the app's protocol; times are Unix ms. A later room adds its events here: the names
`signal:*`, `trade:executed`, `killswitch:triggered` and `block:update` are the app's and are kept for them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, TypeAlias

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all events are. id: of the run that the event is about."""

    NAME: ClassVar[str]
    IS_FACT: ClassVar[bool] = True

    id: str
    symbols: list[str] = []


class BacktestProgressed(Event, frozen=True, kw_only=True):
    """How far a backtest is; progress is 0 to 100."""

    NAME: ClassVar = "backtest:progress"
    IS_FACT: ClassVar = False

    status: str
    progress: float
    current_timestamp: int | None = None
    events_processed: int = 0
    estimated_time_remaining: int | None = None
    error: str | None = None


class BacktestCompleted(Event, frozen=True, kw_only=True):
    """A backtest has a result; the result itself goes by request."""

    NAME: ClassVar = "backtest:complete"

    name: str
    total_return_percent: float | None = None
    sharpe_ratio: float | None = None
    max_drawdown_percent: float | None = None
    total_trades: int | None = None
    verdict: str | None = None
    fingerprint: str | None = None


class BacktestFailed(Event, frozen=True, kw_only=True):
    """A backtest ended without a result: it failed, or was cancelled (code CANCELLED)."""

    NAME: ClassVar = "backtest:error"

    error: str
    code: str


class OptimizationProgressed(Event, frozen=True, kw_only=True):
    """How far an optimisation is."""

    NAME: ClassVar = "optimization:progress"
    IS_FACT: ClassVar = False

    status: str
    progress: float
    points: int
    points_done: int
    best_score: float | None = None
    best_parameters: dict[str, float] | None = None


class OptimizationCompleted(Event, frozen=True, kw_only=True):
    """An optimisation has a result."""

    NAME: ClassVar = "optimization:complete"

    name: str
    best_score: float | None = None
    best_parameters: dict[str, float] | None = None
    verdict: str | None = None


class OptimizationFailed(Event, frozen=True, kw_only=True):
    """An optimisation ended without a result; its points are kept."""

    NAME: ClassVar = "optimization:error"

    error: str
    code: str


class ProbeProgressed(Event, frozen=True, kw_only=True):
    """How many combinations of a probe run are done."""

    NAME: ClassVar = "probe:progress"
    IS_FACT: ClassVar = False

    status: str
    completed: int
    total: int


class ProbeCompleted(Event, frozen=True, kw_only=True):
    """A probe run is whole."""

    NAME: ClassVar = "probe:complete"

    total_combinations: int
    total_trades: int


class ProbeFailed(Event, frozen=True, kw_only=True):
    """A probe run ended before it was whole; what was stored is kept."""

    NAME: ClassVar = "probe:error"

    error: str
    code: str


EVENTS: Final[dict[str, type[Event]]] = {
    kind.NAME: kind
    for kind in (
        BacktestProgressed,
        BacktestCompleted,
        BacktestFailed,
        OptimizationProgressed,
        OptimizationCompleted,
        OptimizationFailed,
        ProbeProgressed,
        ProbeCompleted,
        ProbeFailed,
    )
}

RESERVED: Final = ("signal:new", "signal:expired", "trade:executed", "killswitch:triggered", "block:update")
"""Names of the app's protocol that nothing here sends yet; they may be subscribed to."""

Fields: TypeAlias = dict[str, Any]


class Fact(msgspec.Struct, frozen=True):
    """A fact as the journal has it. seq: its place, from 1; time_ms: when it was written; fields: of its event."""

    seq: int
    name: str
    time_ms: int
    fields: msgspec.Raw
