"""What a backtest found, as users and the app read it: the result object and its parts.

Names are the app's (camelCase on the wire). Times are Unix ms, durations ms; money is quote currency; every `…Percent`
is 12.5 for 12.5 %, `winRate` is 0 to 1, losses and drawdowns are positive. None stands where a figure has no value,
such as a ratio without a loss to divide by. `docs/backtest.md` defines each figure.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from daemon.research.validation_result import (
    LookAhead,
    MonteCarloResult,
    Overfitting,
    SensitivityRow,
    Verdict,
    WalkForward,
)

Status: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled"]
Priority: TypeAlias = Literal["low", "normal", "high"]
Number: TypeAlias = float | None


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all parts of a result are."""


class Metrics(_Part, frozen=True, kw_only=True):
    """Returns and ratios of the whole run, on daily UTC returns. expectancy: mean pnl of a trade."""

    total_return: float
    total_return_percent: float
    annual_return_percent: Number
    sharpe_ratio: Number
    sortino_ratio: Number
    calmar_ratio: Number
    max_drawdown: float
    max_drawdown_percent: float
    win_rate: float
    profit_factor: Number
    expectancy: float
    payoff_ratio: Number


class TradeStats(_Part, frozen=True, kw_only=True):
    """Counts and sizes of trades, after costs."""

    total_trades: int
    winning_trades: int
    losing_trades: int
    break_even_trades: int
    average_win: float
    average_loss: float
    largest_win: float
    largest_loss: float
    average_hold_time: float
    max_consecutive_wins: int
    max_consecutive_losses: int


class RiskMetrics(_Part, frozen=True, kw_only=True):
    """Risk on daily UTC returns; volatility and downvol annualised, beta and alpha against buying and holding."""

    volatility: Number
    downvol: Number
    beta: Number
    alpha: Number
    value_at_risk95: Number
    value_at_risk99: Number
    conditional_va_r95: Number = msgspec.field(name="conditionalVaR95")
    value_at_risk95_gaussian: Number
    ulcer_index: float
    recovery_factor: Number


class EquityPoint(_Part, frozen=True, kw_only=True, gc=False):
    """The account at a bar's close."""

    timestamp: int
    equity: float
    cash: float
    positions_value: float
    unrealized_pnl: float
    block_number: int | None = None


class DrawdownPoint(_Part, frozen=True, kw_only=True, gc=False):
    """How far below its peak the equity is. duration: since the peak."""

    timestamp: int
    drawdown: float
    drawdown_percent: float
    peak: float
    duration: int


class Trade(_Part, frozen=True, kw_only=True, gc=False):
    """A position, or a part of it, from entry to exit.

    Slippage and fees in quote currency, adverse ones positive. mae, mfe: worst and best price in between, percent of
    the entry price. crossed_gap: open over a hole in the data.
    """

    id: int
    symbol: str
    side: Literal["long", "short"]
    entry_time: int
    entry_price: float
    entry_slippage: float
    entry_fees: float
    exit_time: int
    exit_price: float
    exit_slippage: float
    exit_fees: float
    exit_reason: str
    quantity: float
    pnl: float
    pnl_percent: float
    hold_time: int
    mae_percent: float
    mfe_percent: float
    funding: float = 0.0
    crossed_gap: bool = False
    exit_note: str | None = None
    entry_block: int | None = None
    exit_block: int | None = None


class Event(_Part, frozen=True, kw_only=True):
    """Something the user should know of: a rejected order, a liquidation, a hole crossed with an open position."""

    timestamp: int
    type: str
    symbol: str
    message: str


class Execution(_Part, frozen=True, kw_only=True):
    """How the run went; outside of the fingerprint."""

    started_at: int
    completed_at: int | None = None
    duration: int | None = None
    events_processed: int = 0
    data_points: int = 0
    blocks_processed: int = 0
    error: str | None = None


class Extreme(_Part, frozen=True, kw_only=True):
    """One of the two runs of a bar backtest."""

    total_return_percent: float
    max_drawdown_percent: float
    sharpe_ratio: Number
    total_trades: int
    final_equity: float


class Band(_Part, frozen=True, kw_only=True):
    """The run under both readings of what happened inside of bars. width_percent: of the initial capital."""

    pessimistic: Extreme
    optimistic: Extreme
    width_percent: float
    is_wide: bool
    advice: str


class CostReport(_Part, frozen=True, kw_only=True):
    """Where money went. gross_pnl - fees - slippage + funding = net_pnl.

    turnover: traded notional / mean equity. break_even_cost_percent: cost a side, in percent of the notional, that
    would bring the net to zero. paid_cost_percent: what was paid.
    """

    gross_pnl: float
    fees: float
    slippage: float
    funding: float
    net_pnl: float
    traded_notional: float
    turnover: Number
    break_even_cost_percent: Number
    paid_cost_percent: Number
    maker_fills: int
    taker_fills: int
    partial_fills: int
    rejected_orders: int
    model: dict[str, Any]


class BuyAndHold(_Part, frozen=True, kw_only=True):
    """Each symbol bought with its share at the first open and sold at the last close, with the run's taker fees."""

    total_return_percent: float
    max_drawdown_percent: float
    sharpe_ratio: Number


class MonthlyReturn(_Part, frozen=True, kw_only=True):
    """month: `2023-01`."""

    month: str
    return_percent: float


class GapReport(_Part, frozen=True, kw_only=True):
    """Holes in the data of the range. pnl: of positions that were open over one, while it lasted."""

    known_holes: int
    missing_intervals: int
    crossed_with_position: int
    pnl: float
    pnl_percent_of_net: Number


class SeriesUsed(_Part, frozen=True, kw_only=True):
    """Data the run read. rows: those that were traded, after warmup_rows. digest: of all of them, as they are stored.

    volume_unit: what volumes of bars counted.
    """

    symbol: str
    source: str
    rows: int
    first: int
    last: int
    digest: str
    warmup_rows: int = 0
    volume_unit: str | None = None


class BacktestResult(_Part, frozen=True, kw_only=True):
    """The whole result; curves are decimated for a screen, the store has them whole.

    config: as it was sent. resolved: what was understood, with every default. What the verdict rests on is None where
    it was not asked for, and verdict where a release without verdicts made the result.
    """

    id: str
    name: str
    status: Status
    fingerprint: str
    engine_version: str
    verdict: Verdict | None = None
    config: dict[str, Any]
    resolved: dict[str, Any]
    readings: list[str]
    assumptions: list[str]
    notes: list[str]
    metrics: Metrics
    trade_stats: TradeStats
    risk_metrics: RiskMetrics
    equity_curve: list[EquityPoint]
    drawdown_curve: list[DrawdownPoint]
    trades: list[Trade]
    events: list[Event]
    monte_carlo: MonteCarloResult | None = None
    walk_forward: WalkForward | None = None
    overfitting: Overfitting | None = None
    sensitivity: list[SensitivityRow] = []
    look_ahead: LookAhead | None = None
    execution: Execution
    band: Band | None
    costs: CostReport
    buy_and_hold: BuyAndHold
    exposure_percent: float
    monthly_returns: list[MonthlyReturn]
    gaps: GapReport
    data: list[SeriesUsed]
    definitions: dict[str, str]


class Receipt(_Part, frozen=True, kw_only=True):
    """Why a fill has the price it has: its inputs, and its costs in parts.

    reference_price: what the market said (an open, a level, a trade, a quote). spread, impact: parts of the slippage in
    quote currency. participation: of the volume. decided_at: close of the bar that the order was sent at.
    """

    id: int
    trade_id: int | None
    order_id: int
    symbol: str
    timestamp: int
    decided_at: int
    side: Literal["buy", "sell"]
    reason: str
    liquidity: Literal["maker", "taker"]
    quantity: float
    remaining: float
    reference: str
    reference_price: float
    price: float
    slippage: float
    spread: float
    impact: float
    fee: float
    fee_rate: float
    fixed_fee: float
    model: str
    participation: Number
    volume: Number
    daily_volatility: Number
    daily_volume: Number
    cash_after: float
    position_after: float


class BacktestStatus(_Part, frozen=True, kw_only=True):
    """How a backtest is doing. progress: 0 to 100. current_timestamp: of the market, where the run is."""

    id: str
    name: str
    status: Status
    priority: Priority
    progress: float
    created_at: int
    started_at: int | None = None
    completed_at: int | None = None
    current_timestamp: int | None = None
    events_processed: int = 0
    estimated_time_remaining: int | None = None
    memory_bound_mb: float | None = None
    attempts: int = 0
    symbols: list[str]
    timeframe: str
    total_return_percent: float | None = None
    sharpe_ratio: float | None = None
    max_drawdown_percent: float | None = None
    total_trades: int | None = None
    fingerprint: str | None = None
    verdict: str | None = None
    error: str | None = None
    error_code: str | None = None
    error_traceback: list[str] | None = None
    notes: list[str] = []
