"""`atlasd demo`: a market, the full probe over it, the ranking with what luck alone would give, and a report.

Loaded when the command runs, so it may import what it needs.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import typer

from daemon.app import wiring
from daemon.app.cli.output import emit, write_whole
from daemon.app.cli.probe import finish, follow
from daemon.core.market import NS_PER_DAY, BarTable, Instrument, Timeframe
from daemon.research.plans import ProbeRequest, parse_timeframe
from daemon.research.ranking import Ranking, multiple_testing_note, rank
from daemon.research.records import stored_run
from daemon.research.report import render_report
from daemon.research.strategies import digest
from daemon.store import results

if TYPE_CHECKING:
    from daemon.app.config import Config
    from daemon.research.strategies import RuleBook
    from daemon.store.results import JobIndex

_BARS: Final = 20_000
_START_NS: Final = 16_801 * NS_PER_DAY  # 2016-01-01
_SHOWN: Final = 5
# A longer timeframe joins in where it still has bars enough for the slowest indicators.
_FEWEST_BARS: Final = 500


class _Market(NamedTuple):
    """What the demo runs on; label says where it comes from, in every output."""

    instrument: Instrument
    timeframe: Timeframe
    table: BarTable
    source: str
    label: str


def run_demo(config: Config, folder: Path, file: Path | None, timeframe: str, seed: int, output: Path) -> None:
    """Make or read a market, probe it, print the ranking, write the report.

    file: bars of the user's own, at `timeframe`; None simulates a market from `seed`.
    The market is stored under a venue of its own (`synthetic`, `demo`), and the run can be looked at afterwards.
    """
    wiring.check_cache()
    if wiring.is_cache_cold():
        typer.echo("first run on this machine: compiling the kernels once, about ten seconds", err=True)
    market = _simulated(seed) if file is None else _from_file(file, parse_timeframe(timeframe))
    typer.echo(f"{market.label}: {market.table.bars.size:,} {market.timeframe} bars as {market.instrument.key}")
    book = wiring.rule_book(config)
    request = ProbeRequest(
        symbols=[market.instrument.key],
        timeframes=_timeframes(market),
        persist_trades=True,
        run_id=_run_id(market, book, config),
    )
    with wiring.writer(config, folder, "demo") as writer:
        writer.import_bars(market.table, market.instrument, market.timeframe, market.source, replace=True)
        status = follow(writer, request)
    finish(status)
    with wiring.reader(config, folder) as store, store.env.read() as transaction:
        run = stored_run(transaction, status.run_id).run
        indexes = [job.index for job in results.jobs(transaction, status.run_id)]
    ranking = rank(indexes, run.total_combinations)
    _print(ranking, indexes, book)
    page = render_report(run, indexes, book, title=f"Probe of {market.instrument.symbol}", labels=[market.label])
    write_whole(output, page)
    typer.echo(f"report: {output}")
    typer.echo(f"every trade: atlasd results {run.run_id} --trades --justify")


def _simulated(seed: int) -> _Market:
    from daemon.engine.synthetic import WEEKDAYS, MarketModel, simulate

    timeframe = Timeframe.HOUR_1
    bars = simulate(MarketModel(), seed=seed, start_ns=_START_NS, bars=_BARS, timeframe=timeframe, session=WEEKDAYS)
    table = BarTable(bars, np.arange(1, bars.size + 1), ())
    label = f"simulated market, seed {seed}: not real prices"
    return _Market(Instrument("synthetic", f"DEMO-{seed}"), timeframe, table, "the simulator", label)


def _from_file(file: Path, timeframe: Timeframe) -> _Market:
    from adapters.barfile import read_bars

    table = read_bars(file)
    for note in table.notes:
        typer.echo(f"note: {note}", err=True)
    name = re.sub(r"[^A-Z0-9._-]", "-", file.name.split(".")[0].upper()).strip("-._")[:32]
    return _Market(Instrument("demo", name or "FILE"), timeframe, table, file.name, f"your file {file.name}")


def _timeframes(market: _Market) -> list[str]:
    """Return the market's own timeframe, and longer ones that it has bars enough for."""
    span = int(market.table.bars.start_ns.max() - market.table.bars.start_ns.min())
    longer = (Timeframe.MIN_15, Timeframe.HOUR_1, Timeframe.DAY_1)
    joined = [each for each in longer if each.ns > market.timeframe.ns and span // each.ns >= _FEWEST_BARS]
    return [market.timeframe, *joined]


def _run_id(market: _Market, book: RuleBook, config: Config) -> str:
    """Name the run after all that decides its results: the same demo again shows what is stored."""
    hasher = hashlib.blake2b(digest_size=4)
    for column in market.table.bars:
        hasher.update(np.ascontiguousarray(column).data)
    for strategy in book:
        hasher.update(digest(strategy).encode())
    hasher.update(repr(sorted(config.probe.risk_profiles.items())).encode())
    return f"demo-{market.instrument.symbol[:32]}-{hasher.hexdigest()}"


def _print(ranking: Ranking, indexes: list[JobIndex], book: RuleBook) -> None:
    p_adjusted = ranking.p_adjusted
    for title, rows in (("best", ranking.best(_SHOWN)), ("worst", ranking.worst(_SHOWN))):
        typer.echo(f"\n{title} of {ranking.tried:,} combinations that traded")
        emit(
            {
                "strategy": [book.get(int(ranking.strategy_id[row])).name for row in rows],
                "timeframe": [indexes[int(ranking.job[row])].timeframe for row in rows],
                "risk_profile": [ranking.risk_profile[row] for row in rows],
                "trades": [int(ranking.trades[row]) for row in rows],
                "mean_pnl_pct": [round(float(ranking.pnl_mean[row]) * 100, 4) for row in rows],
                "t": [round(float(ranking.t[row]), 2) for row in rows],
                "z": [round(float(ranking.z[row]), 2) for row in rows],
                "p_corrected": [round(float(p_adjusted[row]), 4) for row in rows],
            },
            "table",
        )
    typer.echo(f"\n{multiple_testing_note(ranking)}\n")
