"""The figures of a result, slowly and obviously: fractions where sums are taken, one row at a time, nothing vectorised.

A literal reading of `docs/metrics.md`; nothing is shared with `daemon.engine`. Absent values are None or NaN, as there.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

Floats: TypeAlias = "Sequence[float]"
Number: TypeAlias = float | None


def day_of(close_ns: int, start_ns: int) -> date:
    """Day that a bar which closes then was in; one that closes at midnight was in the day before."""
    instant = max(close_ns - 1, start_ns)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant // 1000)).date()


def period_returns(
    periods: Sequence[Hashable], equity: Floats, initial: float
) -> tuple[list[Hashable], list[float | Fraction]]:
    """Return each period that has a sample, and what it returned."""
    last = dict(zip(periods, equity, strict=True))
    returns: list[float | Fraction] = []
    before, is_ruined = Fraction(initial), False
    for end in last.values():
        returns.append(Fraction(0) if is_ruined else Fraction(end) / before - 1)
        is_ruined = is_ruined or end <= 0
        before = Fraction(end)
    return list(last), returns


def drawdowns(time_ns: Sequence[int], equity: Floats, initial: float, start_ns: int) -> list[tuple[float, float, int]]:
    """Peak, fall and time since the peak, one row a sample."""
    rows = []
    for i in range(len(equity)):
        seen = [(start_ns, initial), *zip(time_ns[: i + 1], equity[: i + 1], strict=True)]
        peak = max(value for _, value in seen)
        rows.append((peak, peak - equity[i], time_ns[i] - max(time for time, value in seen if value == peak)))
    return rows


def known(returns: Floats) -> list[Fraction]:
    """Without NaN."""
    return [Fraction(one) for one in returns if not math.isnan(one)]


def mean(values: Sequence[Fraction]) -> Fraction:
    """Exact."""
    return sum(values, Fraction(0)) / len(values)


def deviation(values: Sequence[Fraction]) -> float:
    """Sample standard deviation."""
    center = mean(values)
    return math.sqrt(sum((value - center) ** 2 for value in values) / (len(values) - 1))


def annual_return(returns: Floats, periods: int) -> Number:
    """Compound, over all days, known or not."""
    if len(returns) < 2:
        return None
    growth = Fraction(1)
    for one in known(returns):
        growth *= 1 + one
        if growth <= 0:
            return -1.0
    return math.pow(growth, periods / len(returns)) - 1


def volatility(returns: Floats, periods: int) -> Number:
    """Annual standard deviation."""
    days = known(returns)
    return deviation(days) * math.sqrt(periods) if len(days) >= 2 else None


def downside(returns: Floats, periods: int) -> Number:
    """Annual downside risk."""
    days = known(returns)
    return math.sqrt(mean([min(day, Fraction(0)) ** 2 for day in days]) * periods) if len(days) >= 2 else None


def sharpe(returns: Floats, periods: int) -> Number:
    """Mean over deviation."""
    risk = volatility(returns, periods)
    return float(mean(known(returns)) * periods) / risk if risk else None


def sortino(returns: Floats, periods: int) -> Number:
    """Mean over downside risk."""
    risk = downside(returns, periods)
    return float(mean(known(returns)) * periods) / risk if risk else None


def daily_drawdowns(returns: Floats) -> list[Fraction]:
    """Fractions of the peak."""
    wealth = [Fraction(1)]
    falls = []
    for one in known(returns):
        wealth.append(wealth[-1] * (1 + one))
        falls.append(1 - wealth[-1] / max(wealth))
    return falls


def calmar(returns: Floats, periods: int) -> Number:
    """Annual return over the deepest daily drawdown."""
    annual, deepest = annual_return(returns, periods), max(daily_drawdowns(returns), default=Fraction(0))
    return None if annual is None or deepest == 0 else annual / float(deepest)


def ulcer(returns: Floats) -> float:
    """Root of the mean square."""
    falls = daily_drawdowns(returns)
    return math.sqrt(mean([fall**2 for fall in falls])) if falls else 0.0


def value_at_risk(returns: Floats, cutoff: Fraction) -> Number:
    """Empirical quantile."""
    days = sorted(known(returns))
    if len(days) < 2:
        return None
    place = (len(days) - 1) * cutoff
    below = math.floor(place)
    return -float(days[below] + (place - below) * (days[below + 1] - days[below]))


def conditional_value_at_risk(returns: Floats, cutoff: Fraction) -> Number:
    """Mean of the tail."""
    days = sorted(known(returns))
    return -float(mean(days[: math.floor((len(days) - 1) * cutoff) + 1])) if len(days) >= 2 else None


def alpha_beta(returns: Floats, benchmark: Floats, periods: int) -> tuple[Number, Number]:
    """Of the days that both know."""
    pairs = [
        (Fraction(a), Fraction(b)) for a, b in zip(returns, benchmark, strict=True) if not math.isnan(a) | math.isnan(b)
    ]
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    if len(pairs) < 2 or len(set(theirs)) == 1:
        return None, None
    center = mean(theirs), mean(ours)
    beta = sum((b - center[0]) * (a - center[1]) for a, b in pairs) / sum((b - center[0]) ** 2 for b in theirs)
    base = 1 + mean([a - beta * b for a, b in pairs])
    return (math.pow(base, periods) - 1 if base > 0 else None), float(beta)


def trades(pnl: Floats, hold_ns: Sequence[int]) -> dict[str, float | None]:
    """All figures of trades by name."""
    wins, losses = [Fraction(x) for x in pnl if x > 0], [Fraction(-x) for x in pnl if x < 0]
    average_win = float(sum(wins) / len(wins)) if wins else 0.0
    average_loss = float(sum(losses) / len(losses)) if losses else 0.0
    return {
        "total_trades": len(pnl),
        "winning_trades": len(wins),
        "losing_trades": len(losses),
        "break_even_trades": len([x for x in pnl if x == 0]),
        "average_win": average_win,
        "average_loss": average_loss,
        "largest_win": float(max(wins, default=0)),
        "largest_loss": float(max(losses, default=0)),
        "average_hold_time": float(Fraction(sum(hold_ns), len(pnl) * 10**6)) if pnl else 0.0,
        "max_consecutive_wins": longest_run([x > 0 for x in pnl]),
        "max_consecutive_losses": longest_run([x < 0 for x in pnl]),
        "win_rate": len(wins) / len(pnl) if pnl else 0.0,
        "profit_factor": float(sum(wins) / sum(losses)) if losses else None,
        "expectancy": float(sum(Fraction(x) for x in pnl) / len(pnl)) if pnl else 0.0,
        "payoff_ratio": average_win / average_loss if wins and losses else None,
    }


def longest_run(holds: Sequence[bool]) -> int:
    """Longest run of True."""
    longest = run = 0
    for one in holds:
        run = run + 1 if one else 0
        longest = max(longest, run)
    return longest


def exposed(positions: Sequence[tuple[int, int]], start_ns: int, stop_ns: int) -> int:
    """Count the moments of [start, stop) at which a position is open."""
    return sum(any(entry <= now < leave for entry, leave in positions) for now in range(start_ns, stop_ns))


def decimated(time_ns: Sequence[int], columns: Sequence[Floats], most: int) -> list[int]:
    """Rows to draw."""
    if len(time_ns) <= most:
        return list(range(len(time_ns)))
    spans: dict[int, list[int]] = {}
    width = (time_ns[-1] - time_ns[0]) // ((most - 2) // (2 * len(columns))) + 1
    for row, time in enumerate(time_ns):
        spans.setdefault((time - time_ns[0]) // width, []).append(row)
    rows = {0, len(time_ns) - 1}
    for column in columns:
        for span in spans.values():
            rows |= {min(span, key=lambda row: column[row]), max(span, key=lambda row: column[row])}
    return sorted(rows)
