"""Daily returns and trades to figures: ratios, risk, trade statistics, costs, Kelly.

The conventions are empyrical's on daily UTC returns; `docs/metrics.md` sets them beside other libraries'. A result's
fingerprint covers these figures, so they may not depend on the machine: sums are exact ones or run from left to right,
roots are IEEE's, powers are decimal arithmetic. Logarithms stand only in `kelly_growth`, which no result contains.

Figures are NamedTuples whose fields have the names of the result's structs. None stands where a figure has no value;
neither NaN nor infinity ever does. Daily returns may hold NaN: a day of which nothing is known, left out of means and
deviations and counted as a day. Any other column is finite.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from daemon.core.market import Float64s, Int64s

Number: TypeAlias = float | None

LEAST_DAYS: Final = 2
"""Days below which nothing is annualised."""

# A daily return is a quotient of equities near 1, less 1: what deviates no more than this is its rounding.
_ROUNDING: Final = 1e-14
_EXACT: Final = Context(prec=40)
_Z95: Final = 1.6448536269514727
_NS_PER_MS: Final = 1_000_000


DEFINITIONS: Final[dict[str, str]] = {
    "totalReturn": "Final equity - initial capital, quote currency.",
    "totalReturnPercent": "totalReturn / initial capital.",
    "annualReturnPercent": "Compound growth a year: (product of 1 + daily return) ^ (days a year / days) - 1.",
    "sharpeRatio": "Mean / sample standard deviation of daily returns x sqrt(days a year), risk-free rate 0.",
    "sortinoRatio": "Mean of daily returns x days a year / downvol, minimum acceptable return 0.",
    "calmarRatio": "Annual return / deepest drawdown of daily closes, which may be less deep than maxDrawdownPercent.",
    "maxDrawdown": "Largest fall of the equity below its highest value so far, at every bar, quote currency.",
    "maxDrawdownPercent": "Largest fall of the equity in percent of its highest value so far, at every bar.",
    "winRate": "Winning trades / all trades, 0 to 1.",
    "profitFactor": "Sum of wins / sum of losses, after costs.",
    "expectancy": "Mean pnl of a trade after costs, quote currency.",
    "payoffRatio": "averageWin / averageLoss.",
    "totalTrades": "Closed trades; an exit in parts is a trade each.",
    "winningTrades": "Trades with a pnl above 0 after costs.",
    "losingTrades": "Trades with a pnl below 0 after costs.",
    "breakEvenTrades": "Trades with a pnl of exactly 0 after costs.",
    "averageWin": "Mean pnl of winning trades, quote currency.",
    "averageLoss": "Mean loss of losing trades, positive, quote currency.",
    "largestWin": "Largest pnl of a trade, quote currency, 0 without a win.",
    "largestLoss": "Largest loss of a trade, positive, quote currency.",
    "averageHoldTime": "Mean time from entry to exit, ms.",
    "maxConsecutiveWins": "Longest run of wins in the order of exits; a break-even trade ends it.",
    "maxConsecutiveLosses": "Longest run of losses in the order of exits; a break-even trade ends it.",
    "volatility": "Sample standard deviation of daily returns x sqrt(days a year), percent.",
    "downvol": "sqrt(mean of min(daily return, 0)^2) x sqrt(days a year), percent; gains count as zeros.",
    "beta": "Covariance of daily returns with those of buying and holding / variance of the latter.",
    "alpha": "(1 + mean of daily return - beta x that of buying and holding) ^ days a year - 1, percent.",
    "valueAtRisk95": "Loss that 5 % of days exceed, percent: empirical quantile, linear between days.",
    "valueAtRisk99": "Loss that 1 % of days exceed, percent: empirical quantile, linear between days.",
    "conditionalVaR95": "Mean loss of the worst floor((days - 1) x 0.05) + 1 days, percent.",
    "valueAtRisk95Gaussian": "Loss that 5 % of days would exceed if they were normal, percent: 1.645 sigma - mean.",
    "ulcerIndex": "sqrt(mean of squared drawdowns of daily closes), percent, after Martin.",
    "recoveryFactor": "totalReturn / maxDrawdown.",
    "drawdownCurve": "Highest equity so far - equity; duration: since the equity was last at that height, ms.",
    "exposurePercent": "Share of the range with at least one position open.",
    "turnover": "Notional of all fills / mean equity.",
    "breakEvenCostPercent": "(Gross pnl + funding) / notional of all fills: the cost a side at which the net is zero.",
    "paidCostPercent": "(Fees + slippage) / notional of all fills: the cost a side that was paid.",
    "monthlyReturns": "Last equity of a UTC month / last equity before it - 1, months without data left out.",
}
"""What each figure of a result is, by its name on the wire. Days a year are 365 for crypto, 252 for equities."""


# Ratios of daily returns. Each takes `returns`, (n,) float64 fractions, NaN allowed, and `periods`, a year's days.


def annual_return(returns: Float64s, periods: int) -> Number:
    """Compound growth a year, a fraction: (product of 1 + r) ^ (periods / days) - 1; NaN count as days.

    -1 after a ruin. None below two days, or where no float64 can hold it.
    """
    if returns.size < LEAST_DAYS:
        return None
    growth = Decimal(1)
    for one in _known(returns).tolist():
        growth = _EXACT.multiply(growth, _EXACT.add(1, Decimal(one)))
        if growth <= 0:
            return -1.0
    return _power_less_1(growth, _EXACT.divide(periods, returns.size))


def annual_volatility(returns: Float64s, periods: int) -> Number:
    """Sample standard deviation x sqrt(periods), a fraction; None below two known days."""
    known = _known(returns)
    return _deviation(known) * math.sqrt(periods) if known.size >= LEAST_DAYS else None


def downside_risk(returns: Float64s, periods: int) -> Number:
    """sqrt(mean of min(r, 0)^2) x sqrt(periods), a fraction, gains in the mean as zeros; None below two known days."""
    known = _known(returns)
    if known.size < LEAST_DAYS:
        return None
    downside = math.sqrt(_mean(np.square(np.minimum(known, 0))))
    return downside * math.sqrt(periods) if downside > _ROUNDING else 0.0


def sharpe_ratio(returns: Float64s, periods: int) -> Number:
    """Mean / sample standard deviation x sqrt(periods); None below two known days or without deviation.

    Source: Sharpe (1994), with a risk-free rate of zero.
    """
    known = _known(returns)
    deviation = _deviation(known) if known.size >= LEAST_DAYS else 0.0
    return _mean(known) / deviation * math.sqrt(periods) if deviation else None


def sortino_ratio(returns: Float64s, periods: int) -> Number:
    """Mean x periods / `downside_risk`; None where that is None or zero. Source: Sortino and Price (1994)."""
    downside = downside_risk(returns, periods)
    return _mean(_known(returns)) * periods / downside if downside else None


def calmar_ratio(returns: Float64s, periods: int) -> Number:
    """`annual_return` / deepest drawdown of daily closes; None without either. Source: Young (1991)."""
    deepest = float(daily_drawdowns(returns).max(initial=0.0))
    annual = annual_return(returns, periods)
    return _ratio(annual, deepest) if annual is not None and deepest > _ROUNDING else None


def daily_drawdowns(returns: Float64s) -> Float64s:
    """(k,) float64 fractions of the peak, positive, one a known day; the start is the first peak."""
    wealth = np.cumprod(1 + _known(returns))
    return np.asarray(1 - wealth / np.maximum(np.maximum.accumulate(wealth), 1.0))


def ulcer_index(returns: Float64s) -> float:
    """sqrt(mean of squared daily drawdowns), a fraction; 0 without days. Source: Martin and McCann (1989)."""
    return math.sqrt(_mean(np.square(daily_drawdowns(returns))))


def value_at_risk(returns: Float64s, cutoff: float) -> Number:
    """Loss that the share `cutoff` of days exceeds, a fraction, negative where even that day gains.

    The empirical quantile, linear between days. None below two known days.
    """
    known = _known(returns)
    return 0.0 - float(np.percentile(known, 100 * cutoff)) if known.size >= LEAST_DAYS else None


def gaussian_value_at_risk95(returns: Float64s) -> Number:
    """`value_at_risk` of 5 % if days were normal: z x sample deviation - mean. None below two known days."""
    known = _known(returns)
    return _Z95 * _deviation(known) - _mean(known) if known.size >= LEAST_DAYS else None


def conditional_value_at_risk(returns: Float64s, cutoff: float) -> Number:
    """Mean loss of the floor((days - 1) x cutoff) + 1 worst days, a fraction. None below two known days."""
    known = np.sort(_known(returns))
    return 0.0 - _mean(known[: int((known.size - 1) * cutoff) + 1]) if known.size >= LEAST_DAYS else None


def alpha_beta(returns: Float64s, benchmark: Float64s, periods: int) -> tuple[Number, Number]:
    """Alpha a year, a fraction, and beta against the benchmark's returns of the same days.

    benchmark: (n,) float64; a day that is NaN in either is left out. beta: covariance / variance. alpha:
    (1 + mean of r - beta x benchmark) ^ periods - 1, compound as empyrical's. Both None below two such days or where
    the benchmark does not move; alpha alone where its mean is -1 or less, or no float64 can hold it.
    """
    if returns.size != benchmark.size:
        raise ValueError(f"{returns.size} returns and {benchmark.size} of the benchmark: they need the same days")
    both = ~(np.isnan(returns) | np.isnan(benchmark))
    ours, theirs = returns[both], benchmark[both]
    if ours.size < LEAST_DAYS or not _deviation(theirs):
        return None, None
    residual = theirs - _mean(theirs)
    beta = _mean(residual * ours) / _mean(np.square(residual))
    base = _EXACT.add(1, Decimal(_mean(ours - beta * theirs)))
    return _power_less_1(base, Decimal(periods)) if base > 0 else None, beta


def _known(returns: Float64s) -> Float64s:
    return returns[~np.isnan(returns)]


def _mean(values: Float64s) -> float:
    """Exact sum / size; 0 of nothing."""
    return math.fsum(values.tolist()) / max(values.size, 1)


def _deviation(values: Float64s) -> float:
    """Sample standard deviation of two or more values; 0 where they differ by rounding alone."""
    squares = np.square(values - _mean(values))
    deviation = math.sqrt(math.fsum(squares.tolist()) / (values.size - 1))
    return deviation if deviation > _ROUNDING else 0.0


def _power_less_1(base: Decimal, exponent: Decimal) -> Number:
    """Raise to a power and take 1 away, rounded once: libm's pow has another last digit on another machine."""
    return _finite(float(_EXACT.subtract(_EXACT.power(base, exponent), 1)))


# The figures of a result.


class ReturnFigures(NamedTuple):
    """Money in quote currency, percent as 12.5; see `DEFINITIONS`."""

    total_return: float
    total_return_percent: float
    annual_return_percent: Number
    sharpe_ratio: Number
    sortino_ratio: Number
    calmar_ratio: Number
    max_drawdown: float
    max_drawdown_percent: float


class RiskFigures(NamedTuple):
    """All in percent, losses positive, but beta and recovery_factor; see `DEFINITIONS`."""

    volatility: Number
    downvol: Number
    beta: Number
    alpha: Number
    value_at_risk95: Number
    value_at_risk99: Number
    conditional_va_r95: Number
    value_at_risk95_gaussian: Number
    ulcer_index: float
    recovery_factor: Number


def return_figures(
    returns: Float64s, periods: int, *, initial: float, final: float, max_drawdown: float, max_drawdown_percent: float
) -> ReturnFigures:
    """Measure returns and ratios of a run.

    returns: (n,) float64 daily. periods: a year's days, 365 or 252. initial, final: equity, quote currency.
    max_drawdown, max_drawdown_percent: of `curves.drawdowns`, at every sample; Calmar's is that of daily closes.
    """
    return ReturnFigures(
        total_return=final - initial,
        total_return_percent=100 * ((final - initial) / initial),
        annual_return_percent=_percent(annual_return(returns, periods)),
        sharpe_ratio=sharpe_ratio(returns, periods),
        sortino_ratio=sortino_ratio(returns, periods),
        calmar_ratio=calmar_ratio(returns, periods),
        max_drawdown=max_drawdown,
        max_drawdown_percent=max_drawdown_percent,
    )


def risk_figures(
    returns: Float64s, benchmark: Float64s | None, periods: int, *, net_profit: float, max_drawdown: float
) -> RiskFigures:
    """Measure the risk of a run; arguments as of `return_figures`.

    benchmark: (n,) float64, returns of the same days of buying and holding, None where there is none.
    """
    alpha, beta = (None, None) if benchmark is None else alpha_beta(returns, benchmark, periods)
    return RiskFigures(
        volatility=_percent(annual_volatility(returns, periods)),
        downvol=_percent(downside_risk(returns, periods)),
        beta=beta,
        alpha=_percent(alpha),
        value_at_risk95=_percent(value_at_risk(returns, 0.05)),
        value_at_risk99=_percent(value_at_risk(returns, 0.01)),
        conditional_va_r95=_percent(conditional_value_at_risk(returns, 0.05)),
        value_at_risk95_gaussian=_percent(gaussian_value_at_risk95(returns)),
        ulcer_index=100 * ulcer_index(returns),
        recovery_factor=_ratio(net_profit, max_drawdown),
    )


def _ratio(amount: float, by: float) -> Number:
    """Divide where there is anything to divide by, and a float64 can hold what comes of it."""
    return _finite(amount / by) if by > 0 else None


def _percent(fraction: Number) -> Number:
    return None if fraction is None else _finite(100 * fraction)


def _finite(value: float) -> Number:
    return value if math.isfinite(value) else None


class TradeFigures(NamedTuple):
    """Counts and sizes; losses positive, quote currency, average_hold_time in ms; see `DEFINITIONS`."""

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


class TradeRatios(NamedTuple):
    """What `Metrics` says of trades; see `DEFINITIONS`."""

    win_rate: float
    profit_factor: Number
    expectancy: float
    payoff_ratio: Number


def trade_figures(pnl: Float64s, hold_ns: Int64s) -> TradeFigures:
    """Count and measure trades.

    pnl: (n,) float64 after costs, quote currency, in the order of exits. hold_ns: (n,) int64. A trade of exactly 0 is
    neither a win nor a loss, and ends a run of either. All zero without trades.
    """
    wins, losses = pnl[pnl > 0], -pnl[pnl < 0]
    return TradeFigures(
        total_trades=pnl.size,
        winning_trades=wins.size,
        losing_trades=losses.size,
        break_even_trades=pnl.size - wins.size - losses.size,
        average_win=_mean(wins),
        average_loss=_mean(losses),
        largest_win=float(wins.max(initial=0.0)),
        largest_loss=float(losses.max(initial=0.0)),
        # Integers of any size: 64 bits of ns overflow with 292 years of holding.
        average_hold_time=sum(hold_ns.tolist()) / (max(hold_ns.size, 1) * _NS_PER_MS),
        max_consecutive_wins=_longest_run(pnl > 0),
        max_consecutive_losses=_longest_run(pnl < 0),
    )


def trade_ratios(pnl: Float64s) -> TradeRatios:
    """Ratios of trades; pnl as of `trade_figures`. Without trades win_rate and expectancy are 0."""
    wins, losses = pnl[pnl > 0], -pnl[pnl < 0]
    return TradeRatios(
        win_rate=wins.size / max(pnl.size, 1),
        profit_factor=_ratio(math.fsum(wins.tolist()), math.fsum(losses.tolist())),
        expectancy=_mean(pnl),
        payoff_ratio=_ratio(_mean(wins), _mean(losses)) if wins.size else None,
    )


def _longest_run(holds: np.typing.NDArray[np.bool_]) -> int:
    breaks = np.flatnonzero(~holds)
    return int(np.diff(breaks, prepend=-1, append=holds.size).max()) - 1


def turnover(traded_notional: float, equity: Float64s) -> Number:
    """How often the mean equity was traded; None where that is not positive. equity: (n,) float64, every sample."""
    # A running sum has one order of additions; how `sum` groups them is NumPy's to choose.
    mean = float(np.cumsum(equity)[-1]) / equity.size if equity.size else 0.0
    return _ratio(traded_notional, mean)


def break_even_cost_percent(gross_pnl: float, traded_notional: float, *, funding: float = 0.0) -> Number:
    """Cost a side, in percent of the notional, that would bring the net to zero; negative where the gross is.

    traded_notional: of all fills, entries and exits. funding: received, which costs may eat too. None without fills.
    """
    return _percent(_ratio(gross_pnl + funding, traded_notional))


def paid_cost_percent(fees: float, slippage: float, traded_notional: float) -> Number:
    """Cost a side that was paid, to compare with `break_even_cost_percent`; None without fills."""
    return _percent(_ratio(fees + slippage, traded_notional))


# How much to bet.


def kelly_fraction(win_rate: float, payoff: float) -> float:
    """Stake p - (1 - p) / b of the capital; negative where the bet has no edge. Source: Kelly (1956).

    win_rate: 0 to 1. payoff: average win / average loss, > 0. ValueError otherwise.
    """
    if not 0 <= win_rate <= 1:
        raise ValueError(f"win_rate is {win_rate}: a share lies between 0 and 1")
    if not payoff > 0:
        raise ValueError(f"payoff is {payoff}: a win must be worth more than nothing")
    return win_rate - (1 - win_rate) / payoff


def kelly_growth(win_rate: float, payoff: float, fraction: float) -> float:
    """Mean log growth a bet when `fraction`, 0 <= f < 1, of the capital is staked; otherwise as `kelly_fraction`."""
    return win_rate * math.log1p(payoff * fraction) + (1 - win_rate) * math.log1p(-fraction)


def continuous_kelly(mean: float, deviation: float) -> float:
    """Leverage of fastest growth under normal returns: mean / deviation^2. deviation: > 0, ValueError otherwise.

    Source: Merton (1969), Thorp (2006).
    """
    if not deviation > 0:
        raise ValueError(f"deviation is {deviation}: without risk there is no best leverage")
    return mean / (deviation * deviation)


def continuous_growth(mean: float, deviation: float, leverage: float) -> float:
    """Growth at a leverage: leverage x mean - (leverage x deviation)^2 / 2, in the time unit of both."""
    risk = leverage * deviation
    return leverage * mean - risk * risk / 2
