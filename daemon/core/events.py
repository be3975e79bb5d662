"""What the daemon tells whoever listens: facts, which are kept and can be replayed, and progress, which is only latest.

Names and fields are those of the app's protocol; times are Unix ms. A later room adds its events here: the names
`signal:*`, `trade:executed`, `killswitch:triggered` and `block:update` are the app's and are kept for them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta


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

# Events of rooms that are not built yet: described for whoever writes a client, sent by nothing. They may be subscribed
# to.

SignalSource: TypeAlias = Literal[
    "technical", "sentiment", "perplexity", "on_chain", "custom", "external", "ai_research"
]
SignalType: TypeAlias = Literal[
    "entry", "exit", "scale_in", "scale_out", "stop_loss", "take_profit", "rebalance", "hedge"
]
Side: TypeAlias = Literal["long", "short"]
TriggerType: TypeAlias = Literal[
    "daily_loss",
    "weekly_loss",
    "drawdown",
    "consecutive_losses",
    "volatility_spike",
    "liquidity_crisis",
    "connection_lost",
    "api_error",
    "manual",
]
KillAction: TypeAlias = Literal[
    "close_all_positions",
    "cancel_all_orders",
    "pause_trading",
    "stop_trading",
    "hedge_positions",
    "notify_user",
    "send_alert",
]


class IndicatorReading(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an indicator says in a signal. signal: in words; strength: 0 to 100."""

    name: str
    value: float
    signal: str
    strength: float


class Signal(Event, frozen=True, kw_only=True):
    """A signal, as it is listed and as it is told when it is new.

    strength: 0 to 100; confidence: 0 to 1; prices: quote currency; suggested_position_size: base units; expires_at:
    None where it stays until it is withdrawn.
    """

    NAME: ClassVar = "signal:new"

    source: SignalSource
    source_channel: str | None = None
    symbol: str
    side: Side
    type: SignalType
    strength: Annotated[float, Meta(ge=0, le=100)]
    confidence: Annotated[float, Meta(ge=0, le=1)]
    timeframe: str | None = None
    current_price: float | None = None
    suggested_entry: float | None = None
    suggested_stop_loss: float | None = None
    suggested_take_profit: float | None = None
    indicators: list[IndicatorReading] = []
    suggested_position_size: float | None = None
    timestamp: int
    expires_at: int | None = None
    reasoning: str | None = None
    sentiment: float | str | None = None
    metadata: dict[str, Any] = {}


class SignalExpired(Event, frozen=True, kw_only=True):
    """A signal holds no longer."""

    NAME: ClassVar = "signal:expired"

    symbol: str
    expired_at: int


class TradeExecuted(Event, frozen=True, kw_only=True):
    """An order was filled, whole or in part. id: of the fill. price, fee: quote currency; quantity: base units."""

    NAME: ClassVar = "trade:executed"

    order_id: str
    strategy_id: str | None = None
    signal_id: str | None = None
    symbol: str
    side: Side
    quantity: float
    price: float
    fee: float
    timestamp: int


class KillSwitchTriggered(Event, frozen=True, kw_only=True):
    """Trading was halted. id: of the halt. trigger: id of the configured one, None for one by hand."""

    NAME: ClassVar = "killswitch:triggered"

    trigger: str | None = None
    type: TriggerType
    reason: str
    actions_executed: list[KillAction]
    triggered_at: int
    cooldown_ends_at: int | None = None


class BlockUpdated(Event, frozen=True, kw_only=True):
    """A chain has a new block. id: its hash. base_fee_gwei: None where the chain has none."""

    NAME: ClassVar = "block:update"
    IS_FACT: ClassVar = False

    chain: str
    number: int
    timestamp: int
    base_fee_gwei: float | None = None
    transactions: int | None = None


RESERVED: Final[dict[str, type[Event]]] = {
    kind.NAME: kind for kind in (Signal, SignalExpired, TradeExecuted, KillSwitchTriggered, BlockUpdated)
}
"""By name, those of the app's protocol that nothing here sends yet."""

Fields: TypeAlias = dict[str, Any]


class Fact(msgspec.Struct, frozen=True):
    """A fact as the journal has it. seq: its place, from 1; time_ms: when it was written; fields: its event as JSON."""

    seq: int
    name: str
    time_ms: int
    fields: msgspec.Raw
