"""One run as one HTML page that opens anywhere, offline: figures, heat map, best and worst, assumptions, data.

The page, its style and its script are in `report.html`; here are the words and numbers that go into it.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from daemon.core.market import Timeframe, TsNs
from daemon.research.ranking import MIN_TRADES, Ranking, multiple_testing_note, rank
from daemon.research.strategies import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.core.market import Float64s, Int64s
    from daemon.research.runs import Run
    from daemon.research.strategies import RuleBook
    from daemon.store.results import JobIndex

LISTED: Final = 15

_RANK_HEADINGS: Final = ("", "Strategy", "Series", "Profile", "Trades", "Mean P&L", "Won", "t", "z")
_DATA_HEADINGS: Final = ("Symbol", "Timeframe", "From", "Bars", "First", "Last", "Partial buckets", "Digest")
_DASH: Final = "\N{EN DASH}"


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


def render_report(
    run: Run, indexes: Sequence[JobIndex], book: RuleBook, *, title: str, labels: Sequence[str]
) -> str:
    """Render a run's stored jobs as a page of some 5 MB that loads nothing.

    labels: what the reader must not miss, such as `synthetic market, seed 7`. Everything is escaped. A strategy that
    the rule book no longer has goes by its stored name.
    """
    from plotly.offline import get_plotlyjs

    content = _content(run, indexes, book)
    ranking = content.ranking
    best, worst = ranking.best(LISTED), ranking.worst(LISTED)
    page = Template(resources.files("daemon.research").joinpath("report.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(title),
        labels="".join(f"<li>{escape(label)}</li>" for label in labels),
        identity=_identity(run),
        alarm=_alarm(run),
        figures=_figures(content),
        note=escape(multiple_testing_note(ranking)),
        tried=f"{ranking.tried:,}",
        threshold=f"{ranking.threshold_z:.2f}",
        min_trades=MIN_TRADES,
        best_count=best.size,
        worst_count=worst.size,
        best=_rank_table(content, best),
        worst=_rank_table(content, worst),
        assumptions="".join(f"<li>{escape(line)}</li>" for line in _assumptions(content, book)),
        series=_series_table(content),
        plotly=get_plotlyjs(),
        # In a script element, `<` could end it or begin a comment; nothing else is special there.
        grid=msgspec.json.encode(_grid(content)).decode().replace("<", "\\u003c"),
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
        ranking=rank(ordered),
    )


# The head of the page.


def _identity(run: Run) -> str:
    return escape(f"run {run.run_id} \N{MIDDLE DOT} submitted {_time(run.created_ns)} UTC \N{MIDDLE DOT} {run.status}")


def _alarm(run: Run) -> str:
    if run.status == "completed":
        return ""
    reason = f": {run.error.message}" if run.error else ""
    done = f"{run.completed_combinations:,} of {run.total_combinations:,} combinations"
    return f'<div class="alarm">This run is {run.status}, the page shows {done}{escape(reason)}</div>'


def _figures(content: _Content) -> str:
    run, indexes, ranking = content.run, content.indexes, content.ranking
    series = {(index.instrument, index.timeframe) for index in indexes}
    symbols = len(set(content.symbols))
    luck = f"luck {ranking.chance_z:.2f}, threshold {ranking.threshold_z:.2f}"
    figures = (
        ("Combinations tried", f"{ranking.tried:,}", f"of {ranking.trades.size:,} run; the others never traded"),
        ("Best z", _signed(ranking.best_z, 2), luck),
        ("Past the threshold", f"{ranking.exceeding:,}", f"of {ranking.order.size:,} with {MIN_TRADES} trades or more"),
        ("Trades", f"{int(ranking.trades.sum()):,}", f"{len(content.strategies):,} strategies"),
        ("Series", f"{len(series):,}", f"{symbols:,} symbol{'' if symbols == 1 else 's'}"),
        ("Dates", *_period(indexes)),
        ("Elapsed", _duration(run.elapsed_seconds), f"{_rate(ranking.trades.size, run.elapsed_seconds)}"),
    )
    return "".join(
        f'<div class="figure"><span>{name}</span><b>{value}</b><span>{words}</span></div>'
        for name, value, words in figures
    )


def _period(indexes: list[JobIndex]) -> tuple[str, str]:
    if not indexes:
        return _DASH, ""
    first = min(index.period_start_ns for index in indexes)
    last = max(index.period_end_ns for index in indexes)
    return _time(first)[:10], f"to {_time(last)[:10]}"


# The map.


def _grid(content: _Content) -> dict[str, object]:
    """Matrices of one list a column and one entry a strategy; null where a combination was not run or has no value."""
    ranking, profiles = content.ranking, list(content.run.risk_profiles)
    series = [(symbol, index.timeframe) for symbol, index in zip(content.symbols, content.indexes, strict=True)]
    used = set(zip(ranking.job.tolist(), ranking.risk_profile, strict=True))
    columns = {
        (*each, profile): None
        for each, (job, profile) in sorted(
            ((series[job], (job, profile)) for job, profile in used),
            key=lambda pair: (pair[1][0], profiles.index(pair[1][1])),
        )
    }
    return {"columns": columns}


def _tmp() -> None: ...
