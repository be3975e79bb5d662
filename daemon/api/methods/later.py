"""Methods of rooms that are not built yet: their structs stand for whoever writes a client; nothing answers them.

Field names are the app's. Money is in US dollars where a name ends in `Usd`, else in quote currency; a name that ends
in `Percent` is 12.5 for 12.5 %. Of `autonomous:*` and `blocks:*` the app names no fields: these are proposals.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from daemon.api.protocol import Nothing, Part, Request, Wanted, planned
from daemon.core.events import BlockUpdated, KillAction, Signal, SignalSource, TriggerType

# The agent that trades by itself.


class AutonomousConfig(Request, frozen=True, kw_only=True):
    """What the agent may do: on these symbols, by these strategies or signals of these sources; empty is all.

    min_confidence: 0 to 1, and min_strength: 0 to 100, of signals that it follows.
    """

    mode: Literal["paper", "live"] = "paper"
    symbols: tuple[str, ...] = ()
    strategy_ids: tuple[str, ...] = ()
    sources: tuple[SignalSource, ...] = ()
    min_confidence: Annotated[float, Meta(ge=0, le=1)] = 0.5
    min_strength: Annotated[float, Meta(ge=0, le=100)] = 50.0


class AutonomousStatus(Part, frozen=True, kw_only=True):
    """What the agent is doing. trades_today: since 00:00 UTC."""

    status: Literal["stopped", "running", "halted"]
    mode: Literal["paper", "live"]
    started_at: int | None = None
    open_positions: int
    pending_orders: int
    trades_today: int
    reason: str | None = None


AUTONOMOUS_START: Final = planned("autonomous:start", Nothing, AutonomousStatus, "Have the agent trade.")
AUTONOMOUS_STOP: Final = planned(
    "autonomous:stop", Nothing, AutonomousStatus, "Have the agent open no more positions; those that are open stay."
)
AUTONOMOUS_STATUS: Final = planned("autonomous:status", Nothing, AutonomousStatus, "Tell what the agent is doing.")
AUTONOMOUS_CONFIG_GET: Final = planned(
    "autonomous:config:get", Nothing, AutonomousConfig, "Return what the agent may do."
)
AUTONOMOUS_CONFIG_SET: Final = planned(
    "autonomous:config:set", AutonomousConfig, AutonomousConfig, "Replace what the agent may do."
)


# The kill switch.


class KillTrigger(Part, frozen=True, kw_only=True):
    """What trips the switch.

    threshold: percent of a loss or drawdown, a count of losses, seconds of a lost connection.
    """

    id: str
    type: TriggerType
    threshold: float
    enabled: bool


class KillSwitchConfig(Part, frozen=True, kw_only=True):
    """When the switch trips, and what it does then."""

    enabled: bool
    triggers: list[KillTrigger]
    actions: list[KillAction]
    cooldown_minutes: float
    notify_on_trigger: bool
    require_manual_reset: bool


class KillSwitchStatus(Part, frozen=True, kw_only=True):
    """Whether trading is halted. trigger: id of the one that tripped; can_resume: a reset would be taken now."""

    triggered: bool
    triggered_at: int | None = None
    trigger: str | None = None
    reason: str | None = None
    actions_executed: list[KillAction]
    cooldown_ends_at: int | None = None
    can_resume: bool
    config: KillSwitchConfig


class KillWanted(Request, frozen=True, kw_only=True):
    """Why to halt. actions: None for those that are configured."""

    reason: Annotated[str, Meta(max_length=1_000)] = ""
    actions: tuple[KillAction, ...] | None = None


class ResetWanted(Request, frozen=True, kw_only=True):
    """Why trading may go on."""

    reason: Annotated[str, Meta(min_length=1, max_length=1_000)]


KILLSWITCH_TRIGGER: Final = planned("killswitch:trigger", KillWanted, KillSwitchStatus, "Halt trading at once.")
KILLSWITCH_STATUS: Final = planned("killswitch:status", Nothing, KillSwitchStatus, "Tell whether trading is halted.")
KILLSWITCH_RESET: Final = planned("killswitch:reset", ResetWanted, KillSwitchStatus, "Let trading go on.")


# Signals.


class SignalsWanted(Request, frozen=True, kw_only=True):
    """Signals of these sources and symbols, the newest first; empty is all. expired: those that hold no longer too."""

    sources: tuple[SignalSource, ...] = ()
    symbols: tuple[str, ...] = ()
    expired: bool = False
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000


class SignalStream(Request, frozen=True, kw_only=True):
    """Signals to be told of; empty is all."""

    sources: tuple[SignalSource, ...] = ()
    symbols: tuple[str, ...] = ()


SIGNALS_LIST: Final = planned("signals:list", SignalsWanted, list[Signal], "List signals, the newest first.")
SIGNALS_SUBSCRIBE: Final = planned(
    "signals:subscribe",
    SignalStream,
    Wanted,
    "Send signals from now on; events:subscribe with `signal:*` does as well.",
)
SIGNALS_UNSUBSCRIBE: Final = planned("signals:unsubscribe", SignalStream, Wanted, "Send signals no longer.")


# Risk.


class RiskLimits(Request, frozen=True, kw_only=True):
    """Limits that no order passes. Asked for, all are there; to change them, one left out stays and null lifts it."""

    max_position_size_usd: float | UnsetType | None = UNSET
    max_position_size_percent: float | UnsetType | None = UNSET
    max_total_exposure_usd: float | UnsetType | None = UNSET
    max_total_exposure_percent: float | UnsetType | None = UNSET
    max_daily_loss_usd: float | UnsetType | None = UNSET
    max_daily_loss_percent: float | UnsetType | None = UNSET
    max_weekly_loss_percent: float | UnsetType | None = UNSET
    max_drawdown_percent: float | UnsetType | None = UNSET
    max_consecutive_losses: int | UnsetType | None = UNSET
    max_leverage: float | UnsetType | None = UNSET
    max_open_positions: int | UnsetType | None = UNSET
    max_orders_per_minute: int | UnsetType | None = UNSET
    max_orders_per_hour: int | UnsetType | None = UNSET


class PortfolioRisk(Part, frozen=True, kw_only=True):
    """What is at risk now. liquidation_risk: 0 to 1; risk_score: 0 to 100."""

    current_exposure: float
    exposure_percent: float
    daily_pnl: float
    daily_pnl_percent: float
    weekly_pnl: float
    weekly_pnl_percent: float
    current_drawdown: float
    current_drawdown_percent: float
    max_drawdown_today: float
    consecutive_losses: int
    open_positions: int
    pending_orders: int
    leverage: float
    margin_used: float
    margin_available: float
    liquidation_risk: Annotated[float, Meta(ge=0, le=1)]
    risk_score: Annotated[float, Meta(ge=0, le=100)]


RISK_LIMITS_GET: Final = planned("risk:limits:get", Nothing, RiskLimits, "Return the limits.")
RISK_LIMITS_SET: Final = planned("risk:limits:set", RiskLimits, RiskLimits, "Change limits.")
RISK_METRICS: Final = planned("risk:metrics", Nothing, PortfolioRisk, "Measure what is at risk.")


# Feedback.

Rating: TypeAlias = Annotated[float, Meta(ge=-1, le=1)]


class Ratings(Request, frozen=True, kw_only=True):
    """What a person thinks of a trade, each -1 to 1."""

    entry_timing: Rating
    exit_timing: Rating
    position_sizing: Rating
    risk_management: Rating
    overall: Rating


class Feedback(Request, frozen=True, kw_only=True):
    """A person's word on a trade. id, timestamp: given by the daemon where they are left out."""

    id: str | None = None
    trade_id: str
    strategy_id: str | None = None
    ratings: Ratings
    notes: Annotated[str, Meta(max_length=10_000)] = ""
    suggested_improvements: tuple[str, ...] = ()
    would_repeat: bool | None = None
    timestamp: int | None = None


class FeedbackWanted(Request, frozen=True, kw_only=True):
    """Feedback on one trade or strategy, or all; the newest first."""

    trade_id: str | None = None
    strategy_id: str | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000


FEEDBACK_SUBMIT: Final = planned("feedback:submit", Feedback, Feedback, "Keep a person's word on a trade.")
FEEDBACK_HISTORY: Final = planned("feedback:history", FeedbackWanted, list[Feedback], "List what persons said.")


# Blocks.


class BlocksWanted(Request, frozen=True, kw_only=True):
    """Chains; empty is all."""

    chains: tuple[str, ...] = ()


BLOCKS_LATEST: Final = planned(
    "blocks:latest", BlocksWanted, list[BlockUpdated], "Return the newest block of each chain that is followed."
)
