"""One run as one HTML page that opens anywhere, offline: figures, heat map, best and worst, assumptions, data.

The page, its style and its script are in `report.html`; here are the words and numbers that go into it.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import Timeframe
from daemon.engine.significance import FAMILY_LEVEL
from daemon.research.plotly_page import (
    DASH,
    embedded,
    line,
    listed,
    render,
    signed,
    spoken_duration,
    spoken_time,
    table,
)
from daemon.research.ranking import (
    DISCOVERED,
    DISCOVERY_LEVEL,
    MIN_TRADES,
    SIGNIFICANT,
    Ranking,
    multiple_testing_note,
    rank,
)
from daemon.research.records import described
from daemon.research.strategies import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s, Int64s
    from daemon.core.strategy import RiskProfile
    from daemon.research.records import Run
    from daemon.research.strategies import RuleBook
    from daemon.store.results import JobIndex

LISTED: Final = 15

_RANK_HEADINGS: Final = ("", "Strategy", "Series", "Profile", "Trades", "Mean P&L", "Won", "t", "z", "p, corrected")
_DATA_HEADINGS: Final = ("Symbol", "Timeframe", "Source", "Bars", "From", "To", "Partial buckets", "Digest")
_LISTED_IDS: Final = 20
_LEAST_SHOWN: Final = 0.0001

# How the table of the best and the worst shows what `Ranking.marks` says.
_KINDS: Final = {SIGNIFICANT: "gain", DISCOVERED: "gain maybe", -DISCOVERED: "loss maybe", -SIGNIFICANT: "loss"}

_RULES: Final = (
    "No costs: no fees, spread, slippage, financing or market impact.",
    (
        "A signal is seen at a bar's close and filled at the next bar's open. Stops, targets and trailing stops are "
        "filled at exactly their level, also where a bar opened beyond it."
    ),
    (
        "Within a bar, exits are tried in this order: exit signal, stop, target, trailing stop, time stop. The "
        "trailing stop rises on the bar's own high (a short's falls on its low) before it is tested, which is "
        "optimistic. The bar of the entry is not tested."
    ),
    "One position at a time for each combination. Positions open at the end of the bars are dropped.",
    "A trade's P&L is a fraction of its entry price: no position sizes, no compounding.",
)


class _Named(NamedTuple):
    """A strategy as the page calls it."""

    id: int
    name: str
    category: str


class _Content(NamedTuple):
    """What every part of the page draws on.

    indexes: jobs in order of symbol and timeframe; the ranking's rows point into them. symbols: what each job's
    instrument is called, its key where two venues share a symbol.
    """

    run: Run
    indexes: list[JobIndex]
    symbols: list[str]
    strategies: dict[int, _Named]
    ranking: Ranking


def render_report(run: Run, indexes: Sequence[JobIndex], book: RuleBook, *, title: str, labels: Sequence[str]) -> str:
    """Render a run's stored jobs as a page of some 5 MB that loads nothing.

    labels: what the reader must not miss, such as `synthetic market, seed 7`. Everything is escaped. A strategy that
    the rule book no longer has goes by its stored name.
    """
    content = _content(run, indexes, book)
    ranking = content.ranking
    best, worst = ranking.best(LISTED), ranking.worst(LISTED)
    return render(
        "report.html",
        title=escape(title),
        labels=listed(labels),
        identity=_identity(run),
        alarm=_alarm(run),
        figures=_figures(content),
        note=escape(multiple_testing_note(ranking)),
        legend=escape(_legend(ranking)),
        family_level=f"{FAMILY_LEVEL:.0%}",
        discovery_level=f"{DISCOVERY_LEVEL:.0%}",
        min_trades=MIN_TRADES,
        best_count=best.size,
        worst_count=worst.size,
        best=_rank_table(content, best),
        worst=_rank_table(content, worst),
        assumptions=listed(_assumptions(content, book)),
        series=_series_table(content),
        grid=embedded(_grid(content)),
    )


def _content(run: Run, indexes: Sequence[JobIndex], book: RuleBook) -> _Content:
    ordered = sorted(indexes, key=lambda index: (index.instrument, Timeframe(index.timeframe).ns))
    shared = Counter(symbol for _, symbol in {(index.instrument, index.symbol) for index in indexes})
    known = {each.id: _Named(each.id, each.display_name, each.category) for each in book}
    ids = sorted({strategy_id for index in indexes for strategy_id in index.totals.strategy_id})
    gone = {each: run.strategy_names.get(each, f"strategy {each}") for each in ids if each not in known}
    return _Content(
        run=run,
        indexes=ordered,
        symbols=[index.instrument if shared[index.symbol] > 1 else index.symbol for index in ordered],
        strategies={each: known.get(each) or _Named(each, gone[each], "not in the rule book") for each in ids},
        ranking=rank(ordered, run.total_combinations),
    )


# The head of the page.


def _identity(run: Run) -> str:
    return escape(
        f"run {run.run_id} \N{MIDDLE DOT} submitted {spoken_time(run.created_ns)} UTC \N{MIDDLE DOT} {run.status}"
    )


def _alarm(run: Run) -> str:
    if run.status == "completed":
        return ""
    reason = f": {run.error.message}" if run.error else ""
    done = f"{run.completed_combinations:,} of {run.total_combinations:,} combinations"
    return f'<div class="alarm">Not a whole run ({run.status}): {done} are stored{escape(reason)}</div>'


def _figures(content: _Content) -> str:
    run, indexes, ranking = content.run, content.indexes, content.ranking
    series = {(index.instrument, index.timeframe) for index in indexes}
    symbols = len(set(content.symbols))
    gains, losses, tested = ranking.gains, ranking.losses, ranking.order.size
    figures = (
        ("Combinations tried", f"{ranking.tried:,}", _tried(ranking)),
        ("Best z", signed(ranking.best_z, 2), f"luck {ranking.chance_z:.2f}, strict test {gains.significant_z:.2f}"),
        ("Significant gains", f"{gains.significant:,}", f"of {tested:,} tested; losses {losses.significant:,}"),
        ("Trades", f"{int(ranking.trades.sum()):,}", "in all combinations"),
        ("Series", f"{len(series):,}", f"{symbols:,} symbol{'' if symbols == 1 else 's'}"),
        ("Dates", *_period(indexes)),
        ("Elapsed", spoken_duration(run.elapsed_seconds), f"{len(content.strategies):,} strategies"),
    )
    return "".join(
        f'<div class="figure"><span>{name}</span><b>{value}</b><span>{words}</span></div>'
        for name, value, words in figures
    )


def _tried(ranking: Ranking) -> str:
    stored = f"of {ranking.trades.size:,} stored; {ranking.idle:,} never traded"
    return f"{stored}, {ranking.pending:,} are not stored" if ranking.pending else stored


def _period(indexes: list[JobIndex]) -> tuple[str, str]:
    if not indexes:
        return DASH, ""
    first = min(index.period_start_ns for index in indexes)
    last = max(index.period_end_ns for index in indexes)
    return spoken_time(first)[:10], f"to {spoken_time(last)[:10]}"


# The map.


def _legend(ranking: Ranking) -> str:
    """Say what the colours of the map stand for, in this run's figures."""
    gains, losses, tested = ranking.gains, ranking.losses, ranking.order.size
    return (
        f"The number in a cell is z. Colours are corrected for all {ranking.tried:,} tries of the run, also for those "
        f"that are not shown, gains and losses apart. Full colour: {_cells(gains.significant)} of gain, with z above "
        f"{gains.significant_z:.2f}, and {losses.significant:,} of loss, below "
        f"{signed(-losses.significant_z, 2)}; if there were nothing but luck, any full colour would have a chance of "
        f"{FAMILY_LEVEL:.0%} for gains, and the same for losses. Pale colour: "
        f"{gains.discovered - gains.significant:,} more of gain, from {gains.discovered_z:.2f} on, and "
        f"{losses.discovered - losses.significant:,} of loss, from {signed(-losses.discovered_z, 2)} on; about "
        f"{DISCOVERY_LEVEL:.0%} of all coloured gains may be luck, and of all coloured losses. The rest is not told "
        f"from luck, however large it looks: without a correction {gains.uncorrected:,} gains and "
        f"{losses.uncorrected:,} losses of {tested:,} tested cells would be coloured at {FAMILY_LEVEL:.0%}, and luck "
        f"alone colours some {FAMILY_LEVEL * tested:,.0f} of each. Point at a cell for its figures."
    )


def _cells(count: int) -> str:
    return f"{count:,} cell{'' if count == 1 else 's'}"


def _grid(content: _Content) -> dict[str, object]:
    """Return columns, strategies and matrices of one list a column; -1 trades where a combination was not run.

    The colours are those of `marks`, never of the rounded figures beside them.
    """
    ranking = content.ranking
    series = [(symbol, index.timeframe) for symbol, index in zip(content.symbols, content.indexes, strict=True)]
    keys = [(*series[job], profile) for job, profile in zip(ranking.job.tolist(), ranking.risk_profile, strict=True)]
    run = set(keys)
    wanted = ((*each, profile) for each in dict.fromkeys(series) for profile in content.run.risk_profiles)
    columns = {key: place for place, key in enumerate(key for key in wanted if key in run)}
    rows = {strategy_id: place for place, strategy_id in enumerate(content.strategies)}
    at = [columns[key] for key in keys], [rows[strategy_id] for strategy_id in ranking.strategy_id.tolist()]

    def matrix(values: Float64s, digits: int) -> list[list[float]]:
        cells = np.full((len(columns), len(rows)), np.nan)
        cells[at] = np.round(values, digits)
        return cells.tolist()

    trades = np.full((len(columns), len(rows)), -1)
    trades[at] = ranking.trades
    marks = np.zeros((len(columns), len(rows)), dtype=np.int8)
    marks[at] = ranking.marks
    return {
        "columns": [dict(zip(("symbol", "timeframe", "profile"), key, strict=True)) for key in columns],
        "strategies": [each._asdict() for each in content.strategies.values()],
        "trades": trades.tolist(),
        "mean": matrix(100 * ranking.pnl_mean, 4),
        "win": matrix(100 * ranking.win_rate, 1),
        "t": matrix(ranking.t, 3),
        "z": matrix(ranking.z, 3),
        "adjusted": matrix(ranking.p_adjusted, 4),
        "discovery": matrix(ranking.false_discovery, 4),
        "marks": marks.tolist(),
        "chance": ranking.chance_z,
        "bars": [ranking.losses.significant_z, ranking.gains.significant_z],
        "min_trades": MIN_TRADES,
    }


# The tables.


def _rank_table(content: _Content, rows: Int64s) -> str:
    if rows.size == 0:
        return f'<p class="soft">No combination has {MIN_TRADES} trades or more with differing results.</p>'
    ranking = content.ranking
    marks, p_adjusted = ranking.marks, ranking.p_adjusted
    lines = []
    for place, row in enumerate(rows.tolist(), start=1):
        job = ranking.job[row]
        cells = (
            str(place),
            content.strategies[int(ranking.strategy_id[row])].name,
            f"{content.symbols[job]} {content.indexes[job].timeframe}",
            ranking.risk_profile[row],
            f"{ranking.trades[row]:,}",
            f"{signed(100 * ranking.pnl_mean[row], 3)} %",
            f"{100 * ranking.win_rate[row]:.1f} %",
            signed(ranking.t[row], 2),
            signed(ranking.z[row], 2),
            _chance(p_adjusted[row]),
        )
        lines.append(line(cells, _KINDS.get(int(marks[row]), "")))
    return table("ranks", _RANK_HEADINGS, lines)


def _chance(p: float) -> str:
    return f"< {_LEAST_SHOWN}" if p < _LEAST_SHOWN else f"{p:.4f}"


def _series_table(content: _Content) -> str:
    lines = {}
    for symbol, index in zip(content.symbols, content.indexes, strict=True):
        cells = (
            symbol,
            index.timeframe,
            "stored" if index.source == index.timeframe else f"derived from {described(index.source)}",
            f"{index.bars:,}",
            spoken_time(index.period_start_ns),
            spoken_time(index.period_end_ns),
            ", ".join(spoken_time(each) for each in index.partial_buckets) or DASH,
            index.bars_digest[:8],
        )
        lines[index.instrument, index.timeframe] = line(cells)
    return table("data", _DATA_HEADINGS, lines.values())


# The words.


def _assumptions(content: _Content, book: RuleBook) -> list[str]:
    run = content.run
    derived = len({(each.instrument, each.timeframe) for each in content.indexes if each.source != each.timeframe})
    partial = len({(each.instrument, each.timeframe) for each in content.indexes if each.partial_buckets})
    known = {strategy.id: digest(strategy) for strategy in book}
    changed = [each for each in content.strategies if each in known and run.rules.get(each) != known[each]]
    lines = [*_RULES, *(f"Risk profile {name}: {_scales(each)}." for name, each in run.risk_profiles.items())]
    if derived:
        lines.append(
            f"{derived:,} series {'is' if derived == 1 else 'are'} derived from shorter bars, aligned to UTC; of "
            f"{partial or 'none'} of them the stored bars cover the first or last bar only in part (table below)."
        )
    if changed:
        lines.append(
            f"Strategies whose rules were changed after this run: {_listed(changed)}. Their names are today's, their "
            "figures the old rules'."
        )
    return lines


def _scales(profile: RiskProfile) -> str:
    scales = {
        "stop": profile.stop_scale,
        "target": profile.target_scale,
        "trail": profile.trailing_scale,
        "time": profile.time_scale,
    }
    return ", ".join(f"{name} \N{MULTIPLICATION SIGN} {scale:g}" for name, scale in scales.items())


def _listed(ids: list[int]) -> str:
    shown = ", ".join(str(each) for each in ids[:_LISTED_IDS])
    return shown if len(ids) <= _LISTED_IDS else f"{shown}, ..."
