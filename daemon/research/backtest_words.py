"""What a result rests on, in sentences: assumptions that always hold, and notes on this very run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from daemon.core import backtest
from daemon.core.market import NS_PER_SECOND
from daemon.engine.metrics import kelly_fraction

if TYPE_CHECKING:
    from daemon.core.backtest import BacktestSpec, Slippage
    from daemon.research.backtest_finding import Finding
    from daemon.research.backtest_market import Loaded

# Less than this share is the rounding of a quantity, not a cut.
_CUT = 1e-6


def assumptions(finding: Finding) -> list[str]:
    """Say how fills, costs, money and time were taken."""
    spec = finding.spec
    said = [_fills(spec), *_costs(spec), *_money(spec), _funding(spec)]
    said += latency_words(spec)
    said.append(f"ratios are of daily UTC returns, annualised on {finding.year_days} days")
    return said


def notes_on(finding: Finding) -> list[str]:
    """Say what is particular about this run: dates that are not covered, volumes that are missing, signals dropped."""
    spec = finding.spec
    notes = []
    for each in finding.loaded:
        key = each.market.instrument.key
        first, last = int(each.bars.start_ns[0]), int(each.bars.start_ns[-1]) + spec.timeframe.ns
        if spec.start_ns is not None and first > spec.start_ns:
            notes.append(f"{key}: asked from {_day(spec.start_ns)}, the first bar is of {_day(first)}")
        if spec.stop_ns is not None and last < spec.stop_ns:
            notes.append(f"{key}: asked to {_day(spec.stop_ns)}, the last bar ends {_day(last)}")
        if isinstance(spec.program, backtest.Rules) and each.warmup == 0 and spec.start_ns is not None:
            notes.append(f"{key}: nothing is stored before the first bar, so indicators warm up inside of the range")
        slippage = each.market.slippage or spec.costs.slippage
        if not np.any(each.volume > 0) and slippage.__struct_config__.tag not in ("none", "fixed_bps", "order_book"):
            notes.append(
                f"{key}: no volume in the whole range, so the slippage model lets nothing trade: choose `none` or "
                "`fixed_bps`, or import volumes"
            )
        if spec.funding.source == "series" and each.simulated.funding_ns.size == 0:
            notes.append(
                f"{key}: no funding rates are stored for the range, so none were paid: `atlasd import funding`"
            )
        notes += _book_notes(each)
        if each.partial:
            notes.append(
                f"{key}: {each.partial} {spec.timeframe} bars at the ends of what is stored are covered in part: the "
                f"{each.market.source} they are made of begin or end inside of them"
            )
        if each.holes:
            notes.append(f"{key}: {len(each.holes)} known holes in the range: `atlasd data gaps {key}`")
    notes += [f"{each}: slower by far, the results are the same" for each in finding.runs.as_python]
    notes += _money_notes(finding) + _met_book_notes(finding)
    if finding.trades.size == 0:
        notes.append("no trade was made: no entry was true, or no order could be filled (see events)")
    return notes


def _book_notes(loaded: Loaded) -> list[str]:
    """Say how many bars have no book to be walked, and what they pay."""
    if not loaded.missing_books:
        return []
    note = (
        f"{loaded.market.instrument.key}: {loaded.missing_books:,} of {loaded.bars.size:,} bars start without a whole "
        "stored book (none there, before a snapshot, in a gap, one-sided or crossed): what takes there pays the "
        "dearest of the books before, and nothing fills before the first of them"
    )
    return [note]


def latency_words(spec: BacktestSpec) -> list[str]:
    """Say how much later events are seen, and orders are where they are sent; nothing of what takes no time."""
    latency = spec.latency
    if spec.fills == "book":
        factors = (1.0, latency.order_factor) if latency.measured else (0.0, 0.0)
        parts = (
            ("events are seen", latency.feed_ns, latency.feed_spread_ns, factors[0]),
            ("orders are at the venue", latency.order_ns, latency.order_spread_ns, factors[1]),
        )
        return [f"{what} {_delay(*delay)} later" for what, *delay in parts if any(delay)]
    delay_ns = latency.feed_ns + latency.order_ns
    if not delay_ns:
        return []
    if spec.fills == "ticks":
        return [f"orders are live {delay_ns / 1e6:g} ms after a decision"]
    bars = delay_ns // spec.timeframe.ns
    return [
        f"a latency of {delay_ns / 1e6:g} ms counts as {bars} whole {spec.timeframe} bars: bars show no part of one"
    ]


def _delay(constant_ns: float, spread_ns: float, factor: float) -> str:
    ends = (
        f"{constant_ns / 1e6:g}" if not spread_ns else f"{constant_ns / 1e6:g} to {(constant_ns + spread_ns) / 1e6:g}"
    )
    own = f"{'' if factor == 1 else f'{factor:g} x '}the symbol's measured feed latency"
    return " and ".join([*([f"{ends} ms"] if constant_ns or spread_ns else []), *([own] if factor else [])])


def _money_notes(finding: Finding) -> list[str]:
    """Say where money ran short, ran out, or was no longer staked."""
    spec, log, notes = finding.spec, finding.runs.main.log, []
    cut = int((log["wanted"] > log["quantity"] * (1 + _CUT)).sum())
    if cut:
        notes.append(f"{cut} fills were cut to the money that was there: sizing asks for more than leverage allows")
    if np.any(finding.runs.main.samples.equity <= 0):
        at = finding.runs.main.samples.time_ns[np.argmax(finding.runs.main.samples.equity <= 0)]
        notes.append(f"bankrupt at {_day(int(at))}: losses beyond the margin are counted, no insurance is assumed")
    if isinstance(spec.sizing, backtest.Kelly) and finding.trades.size >= spec.sizing.least_trades:
        pnl = finding.trades.pnl
        wins, losses = pnl[pnl > 0], -pnl[pnl < 0]
        won = wins.size / max(wins.size + losses.size, 1)
        if losses.size and (not wins.size or kelly_fraction(won, wins.mean() / losses.mean()) <= 0):
            notes.append("kelly: past trades lose, so nothing is staked any more")
    if isinstance(spec.program, backtest.OrderList):
        end_ns = max(int(each.simulated.close_ns[-1]) for each in finding.loaded)
        late = sum(order.time_ns >= end_ns for order in spec.program.orders)
        if late:
            notes.append(f"{late} orders of the list are later than the data: they were never sent")
    return notes


def _met_book_notes(finding: Finding) -> list[str]:
    """Say what was wrong with the books that orders met, and with what was asked of them."""
    notes = []
    for each, book in zip(finding.loaded, finding.runs.main.books, strict=False):
        key, said = each.market.instrument.key, []
        if book["early"]:
            said.append(f"{book['early']:,} rows before the first snapshot or after lost events were not taken")
        if book["gaps"]:
            said.append(f"{book['gaps']:,} times events were lost: until the next snapshot nothing was taken")
        if book["crossed"]:
            said.append(
                f"it was crossed after {book['crossed']:,} of {book['events']:,} events: nothing was taken then"
            )
        if book["stale"]:
            said.append(
                f"{book['stale']:,} orders came more than a minute after what was last heard of it: "
                "they waited for what came next, IOC and FOK orders ended"
            )
        if book["negative"]:
            said.append(f"{book['negative']:,} rows had a size below 0 and were not taken")
        if book["dropped"]:
            said.append(f"{book['dropped']:,} levels were too far from the market to be kept")
        notes += [f"{key}: the book: {one}" for one in said]
    if lost := finding.runs.main.lost_cancels:
        notes.append(f"{lost:,} cancels and replacements met no order: it had filled or ended before they arrived")
    return notes


def _fills(spec: BacktestSpec) -> str:
    limit = "a touched price fills" if spec.limit_fills == "touch" else "the price must go through"
    if spec.fills == "ticks":
        return f"fills on trades (and quotes where stored); resting limit orders: {limit}"
    if spec.fills == "book":
        queue = spec.queue
        exponent = f" of exponent {queue.exponent:g}" if queue.model == "power" else ""
        return (
            f"fills against the stored book: orders take its levels one by one, resting orders wait in their queues "
            f"({queue.model.replace('_', ' ')} model{exponent}); nobody reacts to them"
        )
    return (
        f"fills on {spec.timeframe} bars: signals at a close fill at the next open; inside of a bar the worse of both "
        f"orders of high and low (pessimistic); resting limit orders: {limit}"
    )


def _costs(spec: BacktestSpec) -> list[str]:
    costs = spec.costs
    scale = f", scaled by {costs.scale:g}" if costs.scale != 1 else ""
    fixed = f" plus {costs.fixed_fee:g} a fill" if costs.fixed_fee else ""
    said = [f"fees: maker {100 * costs.maker_rate:g} %, taker {100 * costs.taker_rate:g} %{fixed}{scale}"]
    if spec.fills == "book":
        return said
    if any(market.slippage is None for market in spec.markets):
        said.append(_slippage(costs.slippage, scale))
    own = [(market.instrument.key, market.slippage) for market in spec.markets if market.slippage is not None]
    return [*said, *(f"{key}, with its own parameters: {_slippage(slippage, scale)}" for key, slippage in own)]


def _slippage(slippage: Slippage, scale: str) -> str:
    match slippage:
        case backtest.NoSlippage():
            return "no slippage: fills at the reference price, any quantity"
        case backtest.FixedBps(bps=bps):
            return f"slippage {bps:g} bps of the price{scale}, any quantity"
        case backtest.OrderBook(levels=levels):
            return (
                f"slippage order_book: what takes walks the stored book of the bar's start, {levels} levels a side"
                f"{scale}; no more than they hold is filled in a bar"
            )
        case backtest.VolumeWeighted() as model:
            said = f"{model.impact:g} x (order / bar volume)^2"
        case backtest.SquareRoot() as model:
            said = f"{model.y:g} x daily volatility x sqrt(order / daily volume)"
        case backtest.Almgren2005() as model:
            said = f"gamma {model.gamma:g}, eta {model.eta:g}, {model.turnover_days:g} daily volumes outstanding"
        case backtest.AlmgrenChriss() as model:
            said = _liquidation(model)
        case backtest.Kyle() as model:
            said = f"half of {model.y:g} x daily volatility x order / daily volume"
    capped = f"no more than {100 * model.participation_cap:g} % of a bar's volume"
    return f"slippage {model.__struct_config__.tag}: {model.half_spread_bps:g} bps + {said}{scale}; {capped}"


def _liquidation(model: backtest.AlmgrenChriss) -> str:
    gamma = f"a spread for {100 * model.permanent_volume:g} %" if model.gamma is None else f"gamma {model.gamma:.4g}"
    eta = f"a spread for {100 * model.temporary_volume:g} %" if model.eta is None else f"eta {model.eta:.4g}"
    days = "one bar" if model.execution_days is None else f"{model.execution_days:g} days"
    return (
        f"the optimal liquidation in {model.slices} parts over {days} at risk aversion {model.risk_aversion:g}, of the "
        f"daily volume permanent {gamma}, temporary {eta}"
    )


def _money(spec: BacktestSpec) -> list[str]:
    account = spec.account
    share = f"1/{min(len(spec.markets), account.max_positions or len(spec.markets))} of the equity a symbol"
    is_own = isinstance(spec.program, backtest.Own)
    said = [f"{account.initial_capital:g} to begin with, {'' if is_own else f'{share}, '}one position each"]
    if account.leverage > 1:
        sizes = "the strategy's" if is_own else "the sizing's"
        usual = "" if is_own else " (fixed_fractional takes 1 x the share unless `fraction` says more)"
        said.append(
            f"leverage {account.leverage:g}: positions may reach that many times the equity, how large they are is "
            f"{sizes} to say{usual}"
        )
        said.append(
            f"isolated margin, maintenance {100 * account.maintenance_margin:g} %, "
            f"liquidation fee {100 * account.liquidation_rate:g} %"
        )
    return said


def _funding(spec: BacktestSpec) -> str:
    match spec.funding.source:
        case "series":
            return "funding: the stored series of each symbol"
        case "constant":
            return f"funding: {100 * spec.funding.rate:g} % every {spec.funding.interval_hours} h"
        case "none":
            return "funding: none (zero), as for spot"


def _day(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC):%Y-%m-%d %H:%M} UTC"
